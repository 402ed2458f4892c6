"""Three types of the template that moto's CloudFormation lacks, as far as it goes by moto's own services."""

from __future__ import annotations

from typing import Any

from moto.budgets.models import budgets_backends
from moto.core.common_models import CloudFormationModel
from moto.iam.models import iam_backends


class _Made:
    def __init__(self, physical_resource_id: str) -> None:
        self.physical_resource_id = physical_resource_id

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""


# moto finds the subclasses of CloudFormationModel that there are at its first stack.
class OidcProvider(_Made, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::IAM::OIDCProvider"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> OidcProvider:
        asked = cloudformation_json["Properties"]
        made = iam_backends[account_id]["aws"].create_open_id_connect_provider(
            asked["Url"], asked.get("ThumbprintList", []), asked["ClientIdList"], []
        )
        return cls(made.arn)


class BucketPolicy(_Made, CloudFormationModel):
    """Not put into moto's bucket: its S3 looks at no condition, and would deny everything to everybody."""

    document: dict[str, Any]

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> BucketPolicy:
        asked = cloudformation_json["Properties"]
        made = cls(asked["Bucket"])
        made.document = asked["PolicyDocument"]
        return made


class Budget(_Made, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Budgets::Budget"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> Budget:
        asked = cloudformation_json["Properties"]
        budget = {"BudgetName": resource_name, **asked["Budget"]}
        budgets_backends[account_id]["aws"].create_budget(account_id, budget, asked["NotificationsWithSubscribers"])
        return cls(resource_name)
