import asyncio, sys
import pytest
sys.path.insert(0,"/work/main")
from tests.hall.test_mutants import *
from tests.hall.mutants import MUTANTS
from tests.hall.conftest import *

async def test_dbg(ground):
    m = MUTANTS[0]
    v = await hunted(ground, m, m.race, seed=20260702, waves=1)
    rows = await ground.owner.fetch("select f.sequence, f.subject, e.subject_sequence, e.no, e.transaction_id::text x, e.type, e.at from hall.event e left join hall.feed f on f.event_id = e.id where e.subject like 'fr/%' order by e.subject, e.no")
    for r in rows: print(dict(r))
    print(await ground.owner.fetchrow("select * from hall.feed_state"), await ground.owner.fetchval("select hall.hall_now()"))
