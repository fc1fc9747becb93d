# A small image of the proxy. The base is an argument, so that it can be pinned by digest or replaced by a mirror.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY . /source
RUN python3 -m venv /opt/tunnel && /opt/tunnel/bin/pip install --no-cache-dir --no-compile /source

FROM ${BASE}
COPY --from=build /opt/tunnel /opt/tunnel
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["/opt/tunnel/bin/tunnel"]
