#!/usr/bin/env bash
# Runs test projects one after the other and ends with one line: N passed, N failed, N skipped.
#
#   run.sh unit | all
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
configuration=$(tr 'A-Z' 'a-z' <<<"${CONFIGURATION:-Debug}")

unit=(Resources.Tests Billing.Tests Operator.Tests Devices.Tests Agent.Tests)
# The last one looks at what all the others asked of the API server.
whole=(Monitoring.Tests Simulation.Tests Integration.Tests Console.Tests EndToEnd.Tests Rights.Tests)
case ${1:-all} in
  unit) projects=("${unit[@]}") ;;
  all) projects=("${unit[@]}" "${whole[@]}") ;;
  *) echo "usage: run.sh unit | all" >&2; exit 2 ;;
esac

rm -rf artifacts/rights
passed=0 failed=0 skipped=0
log=$(mktemp) failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT
for project in "${projects[@]}"; do
  printf '\n== %s\n' "$project"
  # The runner's summary is read, and its exit code as well: a run that died counts as a failure even when it printed no count.
  dotnet "artifacts/bin/$project/$configuration/$project.dll" --no-ansi --progress off 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  # A reader of a long log starts at its end: what failed is told again there, each with the first lines of why.
  grep -E -A 12 '^ *failed ' "$log" >>"$failures"
  count() { sed -nE "s/^ *$1: *([0-9]+).*/\1/p" "$log" | tail -n 1; }
  p=$(count succeeded) f=$(count failed) s=$(count skipped)
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
  if [ "$status" != 0 ] && [ "${f:-0}" = 0 ]; then
    printf '%s ended with %s\n' "$project" "$status"
    failed=$((failed + 1))
  fi
done

if [ "$failed" != 0 ]; then
  printf '\n== What failed\n'
  cat "$failures"
fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
