#!/usr/bin/env bash
# Publishes what goes into the images twice, from different folders, and names each file that differs. It takes minutes: make test leaves it out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

# What is here, committed or not. The folders differ in depth and in length, and their files are as old as their copies.
first=$work/one second=$work/another/and/deeper
for folder in "$first" "$second"; do
  mkdir -p "$folder"
  git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read 2>/dev/null | tar -xm -C "$folder"
done

publish() { # project, folder of its own, options
  for folder in "$first" "$second"; do
    dotnet publish "$folder/$1" -c Release -o "$folder/published/$2" "${@:3}" -v quiet --nologo -clp:NoSummary
  done
}

publish src/Tensormesh.Operator operator --no-self-contained -p:Sbom=true
publish src/Tensormesh.Web web --no-self-contained -p:Sbom=true
publish src/Tensormesh.Agent agent -p:Sbom=true
publish tests/Tensormesh.MockDevicePlugin mock-gpus --no-self-contained
for folder in "$first" "$second"; do make -s -C "$folder/tests/mock-gpu" OUT="$folder/published/mock-gpus/driver"; done

if ! diff -rq "$first/published" "$second/published" | sed "s|$work/||g"; then
  echo 'The same sources were published twice, and are not the same' >&2
  exit 1
fi
printf '%d files, the same to the byte\n' "$(find "$first/published" -type f | wc -l)"
