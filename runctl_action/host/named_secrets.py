"""The values behind the setting `secrets`: fetched with the instance's role, just before the training that gets them.

They live in this process's memory and in the training's environment: on no disk, in no argument, in no document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import botocore.exceptions

from runctl_action.contract import secret_names
from runctl_action.contract.secret_names import SecretName
from runctl_action.errors import CloudError, PermissionDenied
from runctl_action.host.aws import Client
from runctl_action.host.redaction import SHORTEST

# What reading takes, in IAM's words; and where AWS's answer names what is missing.
_ACTIONS = {"ssm": "ssm:GetParameter", "secretsmanager": "secretsmanager:GetSecretValue"}
_NAMED = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
_DENIED = {"AccessDeniedException", "AccessDenied"}
_MISSING = {"ParameterNotFound", "ParameterVersionNotFound", "ResourceNotFoundException"}
_HINT = "allow it to the role of the instance profile, for this secret alone"


def fetch(secrets: Mapping[str, str], region: str, *, client: Callable[[str, str], Client] = Client) -> dict[str, str]:
    """The value of each variable. Raises CloudError: it names the secret, and what is missing; no value is in it."""
    clients: dict[str, Client] = {}
    values = {}
    for variable, text in secrets.items():
        where = secret_names.parse(text)
        if where.store not in clients:
            clients[where.store] = client(where.store, region)
        try:
            value = _read(clients[where.store], where)
        except botocore.exceptions.ClientError as error:
            raise _refusal(variable, where, error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise CloudError(f"{_what(variable, where)} cannot be read: {type(error).__name__}: {error}") from error
        except (ValueError, KeyError, TypeError):
            # Nothing of the error: what could not be read is the secret.
            raise CloudError(
                f"{_what(variable, where)} cannot be used: it is not a JSON object with a text in `{where.field}`"
            ) from None
        if why := _unusable(value):
            raise CloudError(f"{_what(variable, where)} cannot be used: {why}")
        values[variable] = value
    return values


def _read(client: Client, where: SecretName) -> str:
    if where.store == "ssm":
        answer = client.ask(lambda ssm: ssm.get_parameter(Name=where.name, WithDecryption=True))
        value: Any = answer["Parameter"]["Value"]
    else:
        answer = client.ask(lambda manager: manager.get_secret_value(SecretId=where.name))
        value = answer.get("SecretString")
    if where.field and value is not None:
        value = json.loads(value)[where.field]
        value = value if isinstance(value, str) else str(int(value))
    return value if value is not None else "\0"


def _unusable(value: str) -> str:
    """Why it can be no variable, or could not be kept out of the log; "" when it can."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        return "it is not text"
    if len(value.strip()) < SHORTEST:
        return f"it has fewer than {SHORTEST} characters, which could not be kept out of the log"
    return ""


def _refusal(variable: str, where: SecretName, error: botocore.exceptions.ClientError) -> CloudError:
    code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    what = f"{_what(variable, where)} cannot be read"
    if code in _MISSING:
        return CloudError(f"{what}: there is none of that name in this region", "correct its name in `secrets`")
    # With a key of the account's own, to decrypt is a permission of its own.
    is_key = code == "DecryptionFailure" or "ciphertext" in said or "KMS" in said
    if code in _DENIED or is_key:
        named = _NAMED.search(said)
        action = named[1] if named else "kms:Decrypt" if is_key else _ACTIONS[where.store]
        return PermissionDenied(f"{what}: {action} is not allowed to the host's role", _HINT)
    return CloudError(f"{what}: {code}: {said}")


def _what(variable: str, where: SecretName) -> str:
    return f"the secret {variable} ({where})"
