"""Appends events over photonpump until its time is over: a load to look at, not a benchmark.

load.py HOST:TCPPORT [--seconds N] [--at-once N]
"""

import argparse
import asyncio
import time

import photonpump


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--at-once", type=int, default=32, help="appends in flight (%(default)s)")
    arguments = parser.parse_args()
    host, port = arguments.address.rsplit(":", 1)
    end = time.monotonic() + arguments.seconds
    count = 0
    async with photonpump.connect(host=host, port=int(port), username="admin", password="changeit") as client:

        async def write(index):
            nonlocal count
            while time.monotonic() < end:
                await client.publish_event("load-%d" % index, "load", body={"at": count})
                count += 1

        await asyncio.gather(*[write(index) for index in range(arguments.at_once)])
    print("%d appends acknowledged in %.0f s" % (count, arguments.seconds))


asyncio.run(main())
