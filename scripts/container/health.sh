#!/bin/bash
# Is the node in this container alive? Exit status 0 when its /health/live answers, else 1. Without curl: the image has none.
# RINGSTORE_HEALTH is HOST:PORT of ExtIp and ExtHttpPort: needed where a configuration file or a flag has them, which are not
# read here, or an ExtDevice. Else EVENTSTORE_EXT_IP and EVENTSTORE_EXT_HTTP_PORT say it, as they do to the node.
ip=${EVENTSTORE_EXT_IP:-${eventstore_ext_ip:-127.0.0.1}}
[ "$ip" = 0.0.0.0 ] && ip=127.0.0.1
place=${RINGSTORE_HEALTH:-$ip:${EVENTSTORE_EXT_HTTP_PORT:-${eventstore_ext_http_port:-2113}}}
host=${place%:*} port=${place##*:}
host=${host#[} host=${host%]} # [::1]:2113
exec 3<> "/dev/tcp/$host/$port" || exit 1
printf 'GET /health/live HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$place" >&3
read -r -t 4 _ status _ <&3 || exit 1
[ "$status" = 204 ]
