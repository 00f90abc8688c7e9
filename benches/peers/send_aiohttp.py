"""Sends as one would write it in an afternoon: aiohttp, and a SQLite set of who got it already."""

import asyncio
import csv
import sqlite3
import sys

import aiohttp

people, url, connections, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ledger = sqlite3.connect(sys.argv[5], isolation_level=None)
ledger.execute("PRAGMA journal_mode = WAL")
ledger.execute("PRAGMA synchronous = FULL")
ledger.execute("CREATE TABLE IF NOT EXISTS sent (mobile TEXT PRIMARY KEY, id TEXT)")


async def main():
    queue = asyncio.Queue(maxsize=4 * connections)
    done = []

    def record(final=False):
        # Every `every` answers one transaction: 1 is a durable record of each send.
        if len(done) >= every or (final and done):
            ledger.execute("BEGIN")
            ledger.executemany("INSERT INTO sent VALUES (?, ?)", done)
            ledger.execute("COMMIT")
            done.clear()

    async def worker(session):
        while (row := await queue.get()) is not None:
            if ledger.execute("SELECT 1 FROM sent WHERE mobile = ?", (row["mobile"],)).fetchone():
                continue
            form = aiohttp.FormData(default_to_multipart=True)
            for name, value in (
                ("to", "+91" + row["mobile"]), ("type", "mediatemplate"), ("template_name", "diwali_gold"),
                ("channel", "whatsapp"), ("from", "+919900112233"), ("coupon_code", f'"GOLD{row["id"]}"'),
                ("limited_time_offer", '[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":4102444799000}}]'),
                ("media_url", "https://cdn.example.com/offer.png"),
                ("params", f'"{row["first_name"]}","{row["city"]}"'), ("lang_code", "en"), ("ref", row["id"]),
            ):
                form.add_field(name, value)
            async with session.post(url, data=form, headers={"api-key": "k"}) as response:
                answer = await response.json()
                done.append((row["mobile"], answer["data"][0]["message_id"]))
                record()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        workers = [asyncio.create_task(worker(session)) for _ in range(connections)]
        with open(people) as file:
            for row in csv.DictReader(file):
                await queue.put(row)
        for _ in workers:
            await queue.put(None)
        await asyncio.gather(*workers)
        record(final=True)


asyncio.run(main())
