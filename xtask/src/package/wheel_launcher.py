"""The command `ocelli`: it becomes the program of the same name."""

import os
import pathlib
import sys


def main():
    program = pathlib.Path(__file__).resolve().parent / "installed" / "bin" / "ocelli"
    os.execv(program, ["ocelli", *sys.argv[1:]])


if __name__ == "__main__":
    main()
