# Needs a Rust toolchain, a C compiler and a static C library. Where no registry can be reached,
# scripts/builder-image makes a local image of this name.
ARG BUILDER=rust:1-slim-bookworm

FROM ${BUILDER} AS builder
WORKDIR /build
# The explicit --target below keeps these flags from build scripts and procedural macros, which
# cannot be linked statically. Packed relocations save 80 KB; a linker that does not know them ignores
# the flag. No tables for unwinding save 200 KB.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs,-T,scripts/no-unwinding.ld"

# The dependencies in a layer of their own, which a change of src/ leaves alone. Building an empty
# library compiles them all and links nothing. Of the packages of the tests there are the manifests only,
# as cargo reads all that the lock names.
COPY Cargo.toml Cargo.lock ./
COPY tests tests
RUN mkdir src \
 && echo '//! Empty.' | tee src/lib.rs src/main.rs \
 && cargo build --release --locked --lib --target "$(rustc --print host-tuple)"

# COPY keeps the times of the files; cargo builds again only what is newer than its last output.
COPY scripts/no-unwinding.ld scripts/
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --target "$(rustc --print host-tuple)" \
 && cp "target/$(rustc --print host-tuple)/release/dot-proxy" /dot-proxy

FROM scratch
COPY --from=builder /dot-proxy /dot-proxy
USER 65534:65534
EXPOSE 53/udp 53/tcp
# Asks the process itself, wherever it listens, and no upstream: an outage of theirs is no reason to restart it.
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s CMD ["/dot-proxy", "health"]
ENTRYPOINT ["/dot-proxy", "--listen", "0.0.0.0:53"]
