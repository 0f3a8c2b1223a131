"""Replacements for AgentBench's script files, for data folders that lack them.

They are reimplemented from the tasks and from the behaviour of the originals: they create the same
files and commands with different code. A folder that has AgentBench's `scripts` takes precedence.
"""

from __future__ import annotations

_STOCK_LOG = r"""
# 401 trades: trader | Purchase or Sell | stock below 100 | count below 1000
traders=(Alice Bob)
kinds=(Purchase Sell)
for _ in $(seq 401); do
  printf '%s | %s | %d | %d\n' "${traders[RANDOM % 2]}" "${kinds[RANDOM % 2]}" \
    "$((RANDOM % 100))" "$((RANDOM % 1000))"
done >> /usr/stock.log
"""

_NESTED_FOLDERS = r"""
# folder1/folder2/.../folder10, each with a file echo-love; the fifth one can be executed
place=.
for depth in $(seq 10); do
  place=$place/folder$depth
  mkdir "$place"
  : > "$place/echo-love"
done
fifth=folder1/folder2/folder3/folder4/folder5/echo-love
echo 'echo "I love myself."' > "$fifth"
chmod +x "$fifth"
"""

_CHECK_CALC = r"""
near() {
  python3 -c 'import sys; sys.exit(abs(float(sys.argv[1]) - eval(sys.argv[2])) >= 1e-5)' "$@"
}
for sum in '15 + (27 * 4) - 10' '3 + (6.7 * 9) - 5.5' '20 / (5 + 2) - 1' '9 * (16 / 8) + 3' \
    '18 / (6 - 2) + 9' '22 - (4 * 6) + 3' '17 + (18.2 / 2) - 2.8' '28 / (14 - 6) + 2'; do
  near "$(calc "$sum")" "$sum" || exit 1
done
"""

# Files behind links count, as in AgentBench's own count. That one also counts /lib, which
# takes long, and /dev, where the counting shell's own script stands among the open files.
_CHECK_COUNT = r"""
tally() {
  local found=0 entry
  for entry in "$1"/*; do
    if [ -f "$entry" ]; then found=$((found + 1))
    elif [ -d "$entry" ]; then found=$((found + $(tally "$entry")))
    fi
  done
  echo "$found"
}
for folder in /usr/local/bin /root /bin /etc /usr/include; do
  [ "$(count "$folder")" = "$(tally "$folder")" ] || exit 1
done
"""

_CHECK_DATE_FORMAT = r"""
while IFS='|' read -r day form; do
  [ "$(date-format "$day" "$form")" = "$(date -d "$day" "+$form")" ] || exit 1
done <<'END'
2023-5-1|%Y-%m
23-5-2|%Y-%m-%d
2023-5-1|%Y/%m
2023/5/10|%d/%m
2021/05/1|Date: %Y-%m-%d
END
"""

_MAKE_CALC = r"""
cat > /usr/local/bin/calc <<'END'
#!/bin/bash
python3 -c "print('%.6f' % ($*))"
END
chmod +x /usr/local/bin/calc
"""

_MAKE_COUNT = r"""
cat > /usr/local/bin/count <<'END'
#!/bin/bash
total=0
for entry in "$1"/*; do
  if [ -f "$entry" ]; then total=$((total + 1))
  elif [ -d "$entry" ]; then total=$((total + $("$0" "$entry")))
  fi
done
echo "$total"
END
chmod +x /usr/local/bin/count
"""

_MAKE_DATE_FORMAT = r"""
printf '#!/bin/bash\ndate -d "$1" "+$2"\n' > /usr/local/bin/date-format
chmod +x /usr/local/bin/date-format
"""

KNOWN_SCRIPTS: dict[str, str] = {
    "init/stock-log.sh": _STOCK_LOG,
    "init/nested_folders.sh": _NESTED_FOLDERS,
    "check/0.sh": _CHECK_CALC,
    "checking/0.sh": _CHECK_CALC,
    "checking/1.sh": _CHECK_COUNT,
    "checking/2.sh": _CHECK_DATE_FORMAT,
    "example/0.sh": _MAKE_CALC,
    "example/1.sh": _MAKE_COUNT,
    "example/2.sh": _MAKE_DATE_FORMAT,
}
"""Bash by the path that tasks name, relative to AgentBench's folder of scripts."""
