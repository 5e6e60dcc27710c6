"""What somebody would write in an afternoon: takes devices in batches, posts them, writes the bucket of each, commits.

No intent before the call, no evidence, no overlap of calls, no answer to a crash; of faults it knows 429. A yardstick of the
benchmarks, which run it as: script.py sqlite|postgres PLACE GRAPH AUTHORITY TENANT CLIENT SECRET_FILE DEVICES BATCH
"""

import http.client
import json
import sys
import time
import urllib.parse
import urllib.request
import uuid

kind, place, graph, authority, tenant, client, secret_file, devices, batch = sys.argv[1:]
devices, batch = int(devices), int(batch)

if kind == "sqlite":
    import sqlite3

    db = sqlite3.connect(place)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    mark = "?"
else:
    import psycopg

    db = psycopg.connect(place)
    mark = "%s"

work = db.cursor()
work.execute("CREATE TABLE jobs (id bigint PRIMARY KEY, device text NOT NULL, state text NOT NULL)")
work.execute("CREATE INDEX jobs_open ON jobs (id) WHERE state = 'queued'")
rows = [(i, str(uuid.uuid4()), "queued") for i in range(devices)]
work.executemany(f"INSERT INTO jobs VALUES ({mark}, {mark}, {mark})", rows)
db.commit()

with open(secret_file) as file:
    form = {"client_id": client, "client_secret": file.read().strip(), "grant_type": "client_credentials", "scope": f"{graph}/.default"}
with urllib.request.urlopen(f"{authority}/{tenant}/oauth2/v2.0/token", urllib.parse.urlencode(form).encode()) as answer:
    token = json.load(answer)["access_token"]

base = urllib.parse.urlsplit(graph)
connection = http.client.HTTPConnection(base.netloc)
path = base.path + "/beta/deviceManagement/managedDevices/bulkReprovisionCloudPc"
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
buckets = {"successfulDeviceIds": "successful", "failedDeviceIds": "failed", "notFoundDeviceIds": "not_found", "notSupportedDeviceIds": "not_supported"}

began, cpu = time.monotonic(), time.process_time()
while True:
    work.execute(f"SELECT id, device FROM jobs WHERE state = 'queued' ORDER BY id LIMIT {batch}")
    due = work.fetchall()
    if not due:
        break
    while True:
        connection.request("POST", path, json.dumps({"managedDeviceIds": [device for _, device in due]}), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 429:
            break
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    if answer.status != 200:
        sys.exit(f"HTTP {answer.status}: {body[:300]}")
    lists = json.loads(body)
    lists = lists.get("value", lists)
    became = {device: state for name, state in buckets.items() for device in lists.get(name) or []}
    work.executemany(f"UPDATE jobs SET state = {mark} WHERE id = {mark}", [(became[device], id) for id, device in due])
    db.commit()
seconds, cpu = time.monotonic() - began, time.process_time() - cpu
print(json.dumps({"n": devices, "seconds": seconds, "cpu_seconds": cpu}))
