"""A client: a parent that forks a worker for each request, as PHP-FPM and prefork servers do. The parent
opens no connection and has no engine; a worker sends one request and ends. Prints as JSON what each saw.

Options
    urls        one for each worker, one after the other
    ca          what to trust
    mode        session_mode, or nothing: what a forked process chooses by itself
    environ     more environment: where tickets are kept
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import ready  # isort: skip - it makes what follows importable

import quicgreen

VERSION = f"quicgreen/{quicgreen.__version__}"


def work(options, url):
    with quicgreen.Session(verify=options["ca"], session_mode=options.get("mode"), timeout=20.0) as session:
        response = session.get(url)
        connection = response.connection
        connection.wait_established()
        return {
            "status": response.status_code,
            "peer": response.headers["x-peer"],
            "mode": session.session_mode.name,
            "resumed": connection.is_resumed,
            "early": connection.early_data,
        }


def fork(options, url):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, json.dumps(work(options, url)).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.exit(0)  # as any program ends
    os.close(write_end)
    told = os.read(read_end, 65536)
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(f"a worker ended with status {status}")
    return json.loads(told)


def main() -> None:
    options = ready.options()
    os.environ.update(options.get("environ", {}))
    told = [fork(options, url) for url in options["urls"]]
    print(json.dumps({"version": VERSION, "workers": told}))


main()
