"""Runs a program on a terminal of its own, of so many columns and lines, and passes on what it writes.

    python terminal.py 100 24 ocelli watch gate --seconds 3
"""

import fcntl
import os
import pty
import struct
import sys
import termios

columns, lines, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    # Before it looks: the size is that of the terminal from its first line on.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", int(lines), int(columns), 0, 0))
    os.execvp(command[0], command)
while True:
    try:
        said = os.read(terminal, 65536)
    except OSError:
        # The program has ended.
        break
    if not said:
        break
    sys.stdout.buffer.write(said)
    sys.stdout.buffer.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
