"""Agents as locust's users: they think, ask a language model token by token, and call a tool.

Why: how a gateway or a model server behaves under a thousand agents is seen before they come. This file is a
locustfile, so all of locust works with it: its web page, its reports, many machines (docs/load-testing.md).

    python examples/locustfile_agents.py        # ten agents for 5 s, with a model that it starts itself
    locust -f examples/locustfile_agents.py --headless -u 1000 -r 100 -t 5m --host https://llm.example
"""

import random
import subprocess
import sys

import gevent
from locust import between, events, task
from locust.runners import MasterRunner

from quicgreen.locust import QuicUser


class Agent(QuicUser):
    wait_time = between(0.5, 2)  # it thinks
    keepalive_expiry = 60  # longer than it thinks: its connection stays

    def on_start(self):
        self.messages = [{"role": "system", "content": "You are brief."}]

    @task
    def work(self):
        answer = self.ask("Who won the 2022 World Cup?")
        if answer:
            self.multiply(len(answer), random.randint(1, 9))

    def ask(self, question):
        """The answer; "" when there was none, which is in the statistics then."""
        asked = [*self.messages[-10:], {"role": "user", "content": question}]
        body = {"model": "gpt-4o", "stream": True, "messages": asked}
        tokens = []
        with self.client.sse("/v1/chat/completions", json=body, name="chat") as events:
            for event in events:
                if event.data != "[DONE]":
                    tokens.append(event.json()["choices"][0]["delta"].get("content", ""))
            if events.error is None and not tokens:
                events.failure("the model said nothing")
        answer = "".join(tokens)
        self.messages += [asked[-1], {"role": "assistant", "content": answer}]
        return answer

    def multiply(self, a, b):
        call = {"tool": "calculator", "input": {"expression": f"{a} * {b}"}}
        with self.rest("POST", "/mcp/v1/call_tool", name="calculator", json=call) as response:
            assert float(response.js["result"]) == a * b, "wrong,"


@events.test_stop.add_listener
def wait_for_last_reports(environment, **_):
    """Several machines, headless: left to itself locust's master ends half a second after it told the workers
    to, and what they had still to finish and to report is lost."""
    runner = environment.runner
    if isinstance(runner, MasterRunner) and environment.parsed_options.headless:
        for worker in runner.clients.all:
            runner.send_message("quit", client_id=worker.id)
        with gevent.Timeout(environment.stop_timeout + 10, False):
            while runner.worker_count:
                gevent.sleep(0.1)


def main():
    from _local import peer

    host, port = peer("_agent_site.py")
    users = ["--users", "10", "--spawn-rate", "10", "--run-time", "5s", "--stop-timeout", "10"]
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--only-summary", *users]
    return subprocess.run([*command, "--host", f"https://{host}:{port}"]).returncode


if __name__ == "__main__":
    sys.exit(main())
