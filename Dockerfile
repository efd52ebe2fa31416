# The operator as one static binary in an otherwise empty image.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo.toml names them.
COPY tests tests
COPY benches benches
# Static, so that the image needs no C library. With --target the flags do not reach build scripts and macros, which cannot
# be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --bin broadcast-operator --target "$target" \
 && install -Ds "target/$target/release/broadcast-operator" /image/broadcast-operator \
 && install -Dm644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
LABEL org.opencontainers.image.title="broadcast-operator" \
      org.opencontainers.image.description="A Kubernetes operator for bulk-message broadcasts" \
      org.opencontainers.image.source="https://github.com/broadcast-operator/broadcast-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
# The binary, and the authorities that vouch for gateways.
COPY --from=build /image /
COPY LICENSE /LICENSE
# Nobody in particular, by number: there is no /etc/passwd.
USER 65532:65532
# Health and metrics; receipts.
EXPOSE 8081 8082
ENTRYPOINT ["/broadcast-operator"]
