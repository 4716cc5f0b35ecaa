#!/bin/bash
# Before Kubernetes ends an executor's pod: ask the executor to hand over its blocks (SIGPWR is Spark's word for it), and
# hold the end back until it is done. How long at most is the pod's terminationGracePeriodSeconds.
set -uo pipefail
executor=$(pgrep -o -f 'java .*KubernetesExecutorBackend') || exit 0
kill -s PWR "$executor"
while kill -s 0 "$executor" 2>/dev/null; do sleep 0.5; done
