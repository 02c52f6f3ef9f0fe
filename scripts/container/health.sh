#!/bin/bash
# Is the node in this container alive? Exit status 0 when its /health/live answers, else 1. Without curl: the image has none.
# Where ExtIp is neither 0.0.0.0 nor 127.0.0.1, EVENTSTORE_EXT_IP says it, as it does to the node; RINGSTORE_HEALTH is
# HOST:PORT of any other place.
ip=${EVENTSTORE_EXT_IP:-127.0.0.1}
[ "$ip" = 0.0.0.0 ] && ip=127.0.0.1
place=${RINGSTORE_HEALTH:-$ip:${EVENTSTORE_EXT_HTTP_PORT:-2113}}
host=${place%:*} port=${place##*:}
exec 3<> "/dev/tcp/$host/$port" || exit 1
printf 'GET /health/live HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$place" >&3
read -r -t 4 _ status _ <&3 || exit 1
[ "$status" = 204 ]
