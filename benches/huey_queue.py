"""huey on SQLite, with its file synced at each commit: jobs through an empty handler, in this process. A peer of the
benchmarks, which run it as: huey_queue.py PLACE JOBS
"""

import json
import sys
import time

from huey import SqliteHuey

place, jobs = sys.argv[1], int(sys.argv[2])
queue = SqliteHuey(filename=place, fsync=True, journal_mode="wal", results=False)


@queue.task()
def nothing(device):
    pass


for i in range(jobs):
    nothing(f"{i:036}")

began, cpu = time.monotonic(), time.process_time()
done = 0
while (task := queue.dequeue()) is not None:
    queue.execute(task)
    done += 1
seconds, cpu = time.monotonic() - began, time.process_time() - cpu
if done != jobs:
    sys.exit(f"{done} jobs done of {jobs}")
print(json.dumps({"n": jobs, "seconds": seconds, "cpu_seconds": cpu}))
