-- $1: accounts.
select pod, deployment, account, product, gpus, started_at, settled_until, ended_at, charge_until, total_nanos
from run_interval where account = any ($1)
