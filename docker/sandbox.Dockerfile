# The sandbox image, for hosts that have no apt but reach a container registry. From the repository
# root: docker build --file docker/sandbox.Dockerfile --tag rlm-sandbox .
#
# `rlm image build` uses this file too. It takes the root from the builder stage, or builds it on the
# host, and the configuration from the last stage, and writes the image itself: so it has the same
# id either way. An image that an engine builds from this file has the same root and another id.

ARG BUILDER=debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
FROM ${BUILDER} AS builder
ARG PACKAGES=pinned
ARG SNAPSHOTS=
RUN apt-get update \
 && apt-get install --assume-yes --no-install-recommends python3 python3-pip
COPY docker/*.py docker/*.lock /build/docker/
COPY sandbox_image /build/sandbox_image
COPY proto/rlm_sandbox /build/rlm_sandbox
RUN python3 -B /build/docker/build_rootfs.py --tar /build/root.tar --directory /build/root \
    --packages "${PACKAGES}" ${SNAPSHOTS:+--snapshots "${SNAPSHOTS}"} \
    --package /build/sandbox_image --package /build/rlm_sandbox

FROM scratch
COPY --from=builder /build/root/ /
LABEL org.opencontainers.image.title="rlm-sandbox"
LABEL org.opencontainers.image.description="Runs one session of rlm-sandbox: Python and its worker, no shell, no package manager"
LABEL org.opencontainers.image.licenses="Apache-2.0 AND PSF-2.0 AND others under /usr/share/doc"
ENV PATH=/usr/bin
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/python3.13", "-I", "-m", "sandbox_image"]
