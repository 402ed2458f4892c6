# The action's image. On GitHub it is built by release.yml and pulled; a checkout of the action (`uses: ./`) builds it.
# Both architectures: the digest is the multi-platform index's. `make test-container` brings another base where there is
# no registry.
ARG BASE_IMAGE=python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/runctl UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
# What changes seldom comes first: a new line of ours does not fetch the packages again.
COPY pyproject.toml uv.lock README.md LICENSE /build/
RUN /opt/uv/bin/uv sync --project /build --frozen --no-dev --no-install-project
COPY runctl_action /build/runctl_action
COPY scripts/bake_uv.py /build/
# uv itself is for hosts: both kinds of them find it zipped, so that a launch needs no package index.
RUN /opt/uv/bin/uv sync --project /build --frozen --no-dev --no-editable \
    && /opt/runctl/bin/python /build/bake_uv.py \
    && rm /opt/runctl/bin/uv /opt/runctl/bin/uvx
COPY docker/runctl-action-step docker/runctl-action-post /opt/runctl/bin/

FROM ${BASE_IMAGE}
# checkout's own safe.directory is written in the runner's home, which is another one in here.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /github/workspace
# The base has no bytecode of the standard library: what we import would be compiled anew at every start.
RUN python3 -m compileall -q -j 0 -x '/(ensurepip|idlelib|pydoc_data|site-packages|test|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/runctl /opt/runctl
ENV PATH=/opt/runctl/bin:$PATH PYTHONUNBUFFERED=1
# No USER and no WORKDIR: the runner mounts what root may write, and says where to start.
ENTRYPOINT ["/opt/runctl/bin/runctl-action-step"]
