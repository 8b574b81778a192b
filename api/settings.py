"""What the service is told by its surroundings: environment variables that begin with JIFEN_."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the service; an empty variable counts as none.

    Attributes:
        database_url: JIFEN_DATABASE_URL, of a PostgreSQL 15 or newer whose role may create a schema and a role; none:
            an embedded one under `data_folder()`.
        home: JIFEN_HOME, where the service keeps what it writes; none: see `data_folder` and `models_folder`.
        postgres_bin: JIFEN_POSTGRES_BIN, PostgreSQL's programs for the embedded server instead of the wheel's.
        pool_size: JIFEN_POOL_SIZE, most connections of one process.
        hall_policy: JIFEN_HALL_POLICY, a YAML file of the operator's own values for settings of the hall; none: those
            that such a file has set before stay.
        issuer: JIFEN_ISSUER, our name as banks know it, the `aud` of their assertions; none: the address served at.
        processes: JIFEN_PROCESSES, how many processes serve one database: each takes its share of the rate limits.
        rate_limits: JIFEN_RATE_LIMITS, `off` for a load test alone.
        behind_tls: JIFEN_BEHIND_TLS, whether clients reach us by HTTPS: they are then told to stay with it.
        debug: JIFEN_DEBUG, whether the interactive pages /docs are served.
    """

    model_config = SettingsConfigDict(env_prefix="JIFEN_", env_ignore_empty=True, frozen=True, extra="ignore")

    database_url: SecretStr | None = None
    home: Path | None = None
    postgres_bin: Path | None = None
    pool_size: int = Field(default=16, ge=2, le=200)
    hall_policy: Path | None = None
    issuer: str | None = Field(default=None, max_length=255)
    processes: int = Field(default=1, ge=1, le=256)
    rate_limits: bool = True
    behind_tls: bool = False
    debug: bool = False

    def data_folder(self) -> Path:
        """Where the embedded database lies: JIFEN_HOME, else /var/lib/jifen for root, else the user's own data.

        Not the current folder: a service would leave its database wherever it happened to be started. Not root's own
        either: PostgreSQL runs as another user, who may not enter it.
        """
        if self.home is not None:
            return self.home
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            return Path("/var/lib/jifen")
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jifen"

    def models_folder(self) -> Path:
        """Where the registry of models lies: JIFEN_HOME, else `var` in the current folder, as for `jifen train`."""
        from models.cli import home

        return (self.home or home()).absolute()
