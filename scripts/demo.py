"""Writes an event through a real client (photonpump), found by gossip, and reads it back.  demo.py HOST:HTTPPORT,..."""

import asyncio
import sys

import photonpump
from photonpump.discovery import prefer_master


async def main():
    host, port = sys.argv[1].split(",")[0].rsplit(":", 1)
    print("photonpump asks http://%s:%s/gossip for the leader" % (host, port))
    connection = photonpump.connect(
        discovery_host=host, discovery_port=int(port), selector=prefer_master, username="admin", password="changeit"
    )
    async with connection as client:
        written = await client.publish_event("demo-orders", "order-placed", body={"order": 1, "item": "a ring"})
        print("wrote event %d of stream demo-orders" % written.first_event_number)
        event = await client.get_event("demo-orders", written.first_event_number)
        print("read it back: %s %s" % (event.event.type, event.event.json()))


asyncio.run(asyncio.wait_for(main(), 30))
