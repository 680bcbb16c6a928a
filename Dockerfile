# syntax=docker/dockerfile:1

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=devel
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X github.com/accrue-billing/accrue/internal/app.version=${VERSION}" \
    -o /accrue ./cmd/accrue
# The service's folder for generated keys, owned by the user that it runs as.
RUN mkdir -p /data && chown 65532:65532 /data

# Nothing but the program, which has the time zones in it, and certificates; no shell, and no root.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /accrue /usr/local/bin/accrue
COPY --from=build --chown=65532:65532 /data /var/lib/accrue
USER 65532:65532
ENV ACCRUE_ADDR=:8080 \
    ACCRUE_SANDBOX_ADDR=:8081 \
    ACCRUE_DATA_DIR=/var/lib/accrue \
    ACCRUE_LOG_FORMAT=json
EXPOSE 8080 8081
VOLUME ["/var/lib/accrue"]
# Kubernetes goes by its own probes of /healthz and /readyz instead.
HEALTHCHECK --interval=5s --timeout=5s --retries=12 CMD ["/usr/local/bin/accrue", "ready"]
# There is no PostgreSQL in this image: give it ACCRUE_DATABASE_URL.
ENTRYPOINT ["/usr/local/bin/accrue"]
CMD ["serve"]
