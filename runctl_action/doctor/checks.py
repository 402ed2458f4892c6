"""Every check, in its order, and what it stands on."""

from __future__ import annotations

from runctl_action.doctor import account, bucket, github, here, launching, network, roles
from runctl_action.doctor.checkup import Check

CHECKS = (
    Check("git root", here.git_root),
    Check("settings", here.settings, ("git root",)),
    Check("script", here.source, ("settings",)),
    Check("credentials", account.credentials, ("settings",)),
    Check("region", account.region, ("credentials",)),
    Check("bucket", bucket.bucket, ("region",)),
    Check("encryption", bucket.encryption, ("bucket",), reads_only=True),
    Check("writing", bucket.writing, ("bucket",)),
    Check("conditional writing", bucket.conditional_writing, ("writing",)),
    Check("instance profile", roles.instance_profile, ("region",)),
    Check("host policies", roles.host_policies, ("instance profile", "bucket"), reads_only=True),
    Check("subnets", network.subnets, ("region",)),
    Check("security groups", network.security_groups, ("subnets",), reads_only=True),
    Check("egress", network.egress, ("subnets",), reads_only=True),
    Check("ssm commands", roles.reading_commands, ("region",)),
    Check("ssm agent", roles.agent, ("instance profile",), reads_only=True),
    Check("instance types", launching.instance_types, ("region",)),
    Check("quotas", launching.quotas, ("instance types",), reads_only=True),
    Check("image", launching.image, ("instance types",)),
    Check("launch", launching.launch, ("image", "instance profile", "subnets", "security groups")),
    Check("prices", launching.prices, ("subnets", "instance types")),
    Check("github token", github.token, ("settings",)),
)
