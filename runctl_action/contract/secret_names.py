"""Where a secret is kept: its name in Parameter Store or Secrets Manager, as the setting `secrets` has it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What each service allows in a name (their API references), or an ARN: that of another account's, for one.
_NAMES = {
    "ssm": re.compile(r"(?:arn:[a-z-]+:ssm:[a-z0-9-]+:[0-9]{12}:parameter)?[A-Za-z0-9/_.-]{1,1011}"),
    "secretsmanager": re.compile(
        r"(?:arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:)?[A-Za-z0-9/_+=.@-]{1,512}"
    ),
}
_FIELD = re.compile(r"[^\x00-\x1f]{1,256}")
# A key or a token, behind the name of a store too: what has so many letters and digits in a row is nobody's name.
_VALUE = re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{16}|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{32}")
_EXAMPLES = "write ssm:/team/wandb, secretsmanager:team/hf or secretsmanager:team/hf#token"


@dataclass(frozen=True)
class SecretName:
    """`store` is "ssm" or "secretsmanager"; of a secret that is a JSON object, the `field` is meant ("": all of it)."""

    store: str
    name: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.store}:{self.name}{f'#{self.field}' if self.field else ''}"


def parse(text: str) -> SecretName:
    """`ssm:NAME` or `secretsmanager:NAME`, with `#FIELD` or not. Raises ValueError, which shows nothing of `text`: it
    may be the secret itself."""
    store, _, rest = text.partition(":")
    name, has_field, field = rest.partition("#")
    is_form = store in _NAMES and _NAMES[store].fullmatch(name) and (not has_field or _FIELD.fullmatch(field))
    if not is_form or _VALUE.search(text):
        raise ValueError(f"what stands there is not where a secret is kept. Names, never values: {_EXAMPLES}")
    if store == "ssm" and "/" in name and not name.startswith(("/", "arn:")):
        raise ValueError("a parameter's name with / in it begins with one: write ssm:/team/wandb")
    return SecretName(store, name, field)
