"""The same with requests and threads."""

import csv
import queue
import sqlite3
import sys
import threading

import requests

people, url, connections, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ledger = sqlite3.connect(sys.argv[5], isolation_level=None, check_same_thread=False)
ledger.execute("PRAGMA journal_mode = WAL")
ledger.execute("PRAGMA synchronous = FULL")
ledger.execute("CREATE TABLE IF NOT EXISTS sent (mobile TEXT PRIMARY KEY, id TEXT)")
lock, done, rows = threading.Lock(), [], queue.Queue(maxsize=4 * connections)


def record(final=False):
    if len(done) >= every or (final and done):
        ledger.execute("BEGIN")
        ledger.executemany("INSERT INTO sent VALUES (?, ?)", done)
        ledger.execute("COMMIT")
        done.clear()


def worker():
    session = requests.Session()
    while (row := rows.get()) is not None:
        with lock:
            if ledger.execute("SELECT 1 FROM sent WHERE mobile = ?", (row["mobile"],)).fetchone():
                continue
        fields = {
            "to": "+91" + row["mobile"], "type": "mediatemplate", "template_name": "diwali_gold", "channel": "whatsapp",
            "from": "+919900112233", "coupon_code": f'"GOLD{row["id"]}"',
            "limited_time_offer": '[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":4102444799000}}]',
            "media_url": "https://cdn.example.com/offer.png", "params": f'"{row["first_name"]}","{row["city"]}"',
            "lang_code": "en", "ref": row["id"],
        }
        answer = session.post(url, files={name: (None, value) for name, value in fields.items()}, headers={"api-key": "k"}).json()
        with lock:
            done.append((row["mobile"], answer["data"][0]["message_id"]))
            record()


threads = [threading.Thread(target=worker) for _ in range(connections)]
for thread in threads:
    thread.start()
with open(people) as file:
    for row in csv.DictReader(file):
        rows.put(row)
for _ in threads:
    rows.put(None)
for thread in threads:
    thread.join()
record(final=True)
