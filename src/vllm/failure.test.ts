/** The reasons that programs give for having ended: of vLLM, of argparse, of our own. */
import { describe, expect, test } from "vitest"
import { Failure } from "./failure.ts"

function reasonOf(text: string): string | null {
  const failure = new Failure()
  for (const line of text.split("\n")) failure.take(line)
  return failure.reason
}

describe("why it ended", () => {
  test.each<[string, string, string | null]>([
    [
      "argparse",
      "usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --max-modle-len 5",
      "unrecognized arguments: --max-modle-len 5",
    ],
    [
      "argparse of a module",
      "api_server.py: error: argument --dtype: invalid choice",
      "argument --dtype: invalid choice",
    ],
    [
      "a program of ours",
      "error: port 9 on 127.0.0.1 is already in use; stop the other program",
      "port 9 on 127.0.0.1 is already in use; stop the other program",
    ],
    [
      "pydantic: the line below it",
      "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, Invalid repository ID or local directory specified: 'nope'.\nPlease verify the following requirements:",
      "Invalid repository ID or local directory specified: 'nope'.",
    ],
    [
      "the error in the engine's process, not that of the one which waited for it",
      "(EngineCore pid=7) ERROR 11-28 20:00:00 [core.py:900] Traceback (most recent call last):\n" +
        "(EngineCore pid=7) ERROR 11-28 20:00:00 [core.py:900] slos_serve_vllm.config.ConfigError: slos-serve: the planner decides the order\n" +
        "(APIServer pid=5) Traceback (most recent call last):\n" +
        "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
      "slos-serve: the planner decides the order",
    ],
    [
      "that of a worker",
      "(Worker pid=7) ERROR 11-28 20:00:00 [x.py:9] torch.OutOfMemoryError: CUDA out of memory.\n" +
        "(EngineCore pid=6) Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.",
      "CUDA out of memory.",
    ],
    [
      "none that is named",
      "(APIServer pid=5) INFO 11-28 20:00:00 [serve.py:7] Loading weights\nKilled",
      null,
    ],
    ["not what only speaks of errors", "WARNING 11-28 20:00:00 [x.py:9] an Error: is no error: here", null],
  ])("%s", (_, text, reason) => {
    expect(reasonOf(text)).toBe(reason)
  })

  test("no longer than a line that can be read", () => {
    expect(reasonOf(`ValueError: ${"x".repeat(2000)}`)).toHaveLength(500)
  })
})
