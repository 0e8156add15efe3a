#!/usr/bin/env bash
# The main job, told through kubectl, curl and psql alone: an account without a card, without money, with money, running out, topped up, gone.
# Every step prints what was seen and stops the story when it is not what it should be.
#
#   story.sh ENV-FILE      ENV-FILE is the .dev/env of a running installation
set -euo pipefail
source "${1:?usage: story.sh ENV-FILE}"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

step=0 started=$SECONDS
say() { step=$((step + 1)); printf '\n\033[1m%d. %s\033[0m  [%d s]\n' "$step" "$*" "$((SECONDS - started))"; }
show() { printf '   $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/   /'; }
fail() { printf '\n   NOT AS IT SHOULD BE: %s\n' "$*" >&2; diagnose; exit 1; }
diagnose() {
  { kubectl get gpud,ba,deploy,pods -A -o wide; kubectl describe gpud -A; kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.metadata.deletionTimestamp}{" "}{.status.containerStatuses}{"\n"}{end}'; tail -n 40 "$TENSORMESH_OPERATOR_LOG"; } 2>&1 | cut -c1-400 | sed "s/^/   | /" >&2
}
sql() { psql "$DATABASE_URL" -XAtq -c "$1"; }
api() { # METHOD PATH [JSON], as the customer acme; AS=admin for a platform operator
  local token=$TENSORMESH_TOKEN; [ "${AS:-}" = admin ] && token=$TENSORMESH_ADMIN_TOKEN
  printf '   $ curl -X %s $TENSORMESH_URL%s %s\n' "$1" "$2" "${3:+-d '$3'}" >&2
  curl -sS --fail-with-body -X "$1" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' ${3:+-d "$3"} "$TENSORMESH_URL$2" | sed 's/^/   /'
  echo
}
until_true() { # SECONDS WHAT COMMAND...: polls a condition
  local limit=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $limit ] || fail "$what did not happen within its time"; sleep 0.2; done
}
refused() { # PATTERN: applies the workload and wants a refusal that says PATTERN
  local answer
  if answer=$(workload | kubectl apply -f - 2>&1); then fail "the apply was accepted: $answer"; fi
  printf '   $ kubectl apply -f trainer.yaml\n'; sed 's/^/   /' <<<"$answer"
  grep -q "$1" <<<"$answer" || fail "the refusal does not say '$1'"
}
workload() {
  cat <<'YAML'
apiVersion: tensormesh.ai/v1alpha1
kind: GpuDeployment
metadata: {name: trainer, namespace: acme-research}
spec:
  replicas: 2
  gpu: {count: 2, product: NVIDIA-H100-80GB-HBM3}
  template:
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: main
        image: tensormesh.ai/workload:dev
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'echo "GPUs in this container: $NVIDIA_VISIBLE_DEVICES"; trap "exit 0" TERM; while :; do sleep 1 & wait $!; done']
YAML
}
running() { [ "$(kubectl get gpud trainer -n acme-research -o jsonpath='{.status.readyReplicas}')" = 2 ]; }
no_pods() { [ -z "$(kubectl get pods -n acme-research -o name)" ]; }
priced() { kubectl wait --for=condition=Ready pricebook/list-prices --timeout=1s; }
declared() { kubectl wait --for=condition=Ready ba/acme --timeout=1s; }

say "An account, a namespace that it pays for, and prices"
made=$(mktemp)
# On a cluster of the user's own the story takes away what it made, and nothing that was there before. A dev cluster goes as a whole.
tidy() {
  if [ "$TENSORMESH_USERS_OWN_CLUSTER" = 1 ]; then
    sed -n 's/^ *\(.*\) created$/\1/p' "$made" | tac | xargs -r kubectl delete --ignore-not-found --timeout=60s | sed 's/^/   /' || true
  fi
  rm -f "$made"
}
trap tidy EXIT
show kubectl apply -f manifests/examples/account.yaml -f manifests/examples/namespace.yaml -f manifests/examples/pricebook.yaml | tee "$made"
until_true 60 "the price book's publication" priced
until_true 60 "the account's declaration" declared
show kubectl get ba,pricebooks

say "Apply without a card: denied"
refused 'no valid card'

say "A card, but no balance: denied, with the amount that is missing"
api POST /v1/billing/stripe/customers/payment-methods '{"stripePaymentMethodId":"pm_card_visa"}'
refused 'short by'

say "Ten cents of balance: 4 GPUs at \$2.50 burn \$10.00 an hour, so that lasts 36 seconds"
AS=admin api POST /v1/admin/billing/balances:add '{"targetUserId":"acme","amount":{"currencyCode":"USD","units":"0","nanos":100000000}}'
workload | kubectl apply -f - | sed 's/^/   /'
until_true 120 "two ready replicas" running
show kubectl get pods -n acme-research -o wide
show kubectl get gpud,ba -A
if [ "$TENSORMESH_REAL_NODE" = 1 ]; then
  show kubectl logs -n acme-research -l tensormesh.ai/gpudeployment=trainer
fi

say "Twenty replicas are more than the money that is left: the scale-up is denied, what runs goes on"
if answer=$(kubectl scale gpud trainer -n acme-research --replicas=20 2>&1); then fail "the scale-up was accepted: $answer"; fi
sed 's/^/   /' <<<"$answer"
running || fail "the running replicas were touched"

say "The money runs out: the pods go, at the right second"
kubectl wait --for=condition=Suspended gpud/trainer -n acme-research --timeout=60s | sed 's/^/   /'
until_true 180 "the end of the pods" no_pods
show kubectl get gpud,ba -A
show psql "$DATABASE_URL" -X -c "SELECT at, decided_at, reason, uncollected FROM v_suspension"
show psql "$DATABASE_URL" -X -c "SELECT pod_name, gpus, started_at, charge_until, ended_at, charged FROM v_run_interval"
# What was bought, to the second: ten cents at four GPUs times \$2.50 an hour.
seconds=$(sql "SELECT round(sum(gpus * extract(epoch FROM charge_until - started_at)) / 4, 3) FROM run_interval")
printf '   %s seconds were paid for on 4 GPUs; $0.10 / ($10.00 / h) = 36 s\n' "$seconds"
[ "$(sql "SELECT abs($seconds - 36) < 0.01")" = t ] || fail "the pods were charged for $seconds s"
[ "$(sql "SELECT coalesce(sum(uncollected_nanos), 0) = 0 FROM suspension")" = t ] || fail "something was written off"

say "Top up by card, and the work comes back without anyone touching it"
api POST /v1/billing/stripe/payment-intents '{"amount":{"currencyCode":"USD","units":"5","nanos":0},"stripePaymentMethodId":"pm_card_visa"}'
until_true 120 "the return of two ready replicas" running
show kubectl get gpud,ba -A
show kubectl get events -n acme-research --field-selector involvedObject.kind=GpuDeployment --sort-by=.lastTimestamp -o custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message

say "Delete: charging ends with the pods"
# Seconds, as a rule. A kubelet that lost sight of a container while it deleted the pod is given two minutes to find its true end.
show kubectl delete gpud trainer -n acme-research --timeout=180s || fail "the deployment was not let go"
until_true 180 "the end of the pods" no_pods

say "The books"
show psql "$DATABASE_URL" -X -c "SELECT * FROM v_trial_balance"
api GET /v1/billing/balance
api GET '/v1/billing/transactions?pageSize=3'
[ "$(sql "SELECT coalesce(sum(amount_nanos), 0) FROM ledger_entry")" = 0 ] || fail "the ledger does not sum to zero"
charged=$(sql "SELECT -coalesce(sum(e.amount_nanos), 0) FROM ledger_entry e JOIN ledger_transaction t ON t.position = e.transaction_position
               JOIN ledger_account a ON a.id = e.ledger_account WHERE a.name = 'customer:acme' AND t.type IN ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit')")
# GPU-seconds x price, from the pods' own times, without looking at the ledger.
measured=$(sql "SELECT sum(div(gpus::numeric * per_gpu_hour_nanos * (extract(epoch FROM least(ended_at, charge_until) - started_at) * 1000000)::bigint, 3600000000)) FROM run_interval")
printf '   charged: %s nano-dollars; GPU-seconds x price: %s nano-dollars\n' "$charged" "$measured"
[ "$charged" = "$measured" ] || fail "the charges are not GPU-seconds x price"

printf '\n\033[1mThe story holds.\033[0m  [%d s]\n' "$((SECONDS - started))"
