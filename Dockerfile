# docker build -t relayd .
# docker run -d --name relayd -p 2222:2222 -v relayd:/var/lib/relayd relayd --public-address relay.example.net:2222
# docker exec -i relayd relayctl add-client --name alice - <alice.pub
#
# What stands behind the image's name are options of relayd. The registry and the host key are in the volume.
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY scripts scripts
COPY tests/libssh tests/libssh
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && scripts/deps.sh
COPY . .
RUN autoreconf -fi && mkdir -p /build && cd /build && \
    /src/configure --prefix=/usr --sysconfdir=/etc --without-systemd && make -j "$(nproc)" && make install-strip DESTDIR=/image

FROM debian:bookworm-slim
RUN apt-get update && \
    apt-get install -y --no-install-recommends \
        libevent-core-2.1-7 libinih1 libjansson4 libsqlite3-0 libssl3 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --user-group --no-create-home --home-dir /var/lib/relayd --shell /usr/sbin/nologin relayd && \
    install -d -o relayd -g relayd -m 700 /var/lib/relayd && \
    install -d -o relayd -g relayd /run/relayd
COPY --from=build /image /
USER relayd
VOLUME /var/lib/relayd
EXPOSE 2222
HEALTHCHECK CMD ["/usr/bin/relayctl", "status"]
ENTRYPOINT ["/usr/sbin/relayd", "--config", "/etc/relayd/relayd.conf"]
