# The image of the proxy: Python and `tunnel`, for a user who can write no files.
#
#   docker build --tag tunnel .
#   docker build --tag tunnel --build-arg EXTRAS=acme,opa .
#
# Two bases with the same Python at the same path. BUILD_BASE has pip and a compiler, for packages without a wheel; it is not part of
# the image. BASE is the runtime: it needs no shell, pip or compiler. A tag can be moved, a digest cannot: get the digest with
# `docker buildx imagetools inspect IMAGE`, and pass BASE=IMAGE@sha256:..., BUILD_BASE likewise.
ARG BUILD_BASE=docker.io/library/python:3.11.14-bookworm
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BUILD_BASE} AS build
# All optional features; the image is smaller with fewer. acme: ACME servers, dns: SRV records, jwt: JWT-SVIDs, opa: Rego policies.
ARG EXTRAS=acme,dns,jwt,opa,otel
WORKDIR /source
# An environment without pip, into which the pip of another one installs.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/tunnel
COPY pyproject.toml README.md LICENSE ./
COPY bin bin
COPY tunnel tunnel
# pip drops -I, which keeps the interpreter from environment variables that are meant for the command of `exec` and `run`.
RUN /build/bin/pip --python /opt/tunnel/bin/python install --no-compile --disable-pip-version-check ".${EXTRAS:+[$EXTRAS]}" \
 && python3 -c 'from pathlib import Path; script = Path("/opt/tunnel/bin/tunnel"); first, rest = script.read_text().split("\n", 1); \
      script.write_text(first.removesuffix(" -I") + " -I\n" + rest)'
# No bytecode can be written at run time, so it is compiled now, also that of the standard library, which the official images omit. It
# contains the hash of its source: with a base whose library differs it is ignored. A package may contain a file for a newer Python;
# that is no failure.
RUN library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && find "$library" -name __pycache__ -prune -exec rm -r {} + \
 && { python3 -m compileall -qq -j 0 --invalidation-mode checked-hash "$library" /opt/tunnel/lib \
        -x "$library/(dist-packages|site-packages|ensurepip|idlelib|lib2to3|test|tkinter|turtledemo)/" || true; } \
 && mkdir -p /image/opt && mv /opt/tunnel /image/opt/ \
 && find "$library" -name __pycache__ -exec cp -r --parents {} /image \;

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="tunnel" \
      org.opencontainers.image.description="Gives a plain TCP service or client a SPIFFE identity" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /image /
ENV PATH=/opt/tunnel/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# By number: runAsNonRoot of Kubernetes cannot check a name.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["tunnel", "health"]
ENTRYPOINT ["tunnel"]
