/** A real llama-server behind the port, where there is one: LLAMA_SERVER=/path/to/llama-server. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { describe, expect, test } from "vitest"
import { TINY_PRESETS, tinyModel } from "../../models/tiny.ts"
import { until } from "../../serve/until-testing.ts"
import { realEngineSuite } from "./real-engine.suite.ts"

const PROGRAM = process.env.LLAMA_SERVER ?? ""

describe.skipIf(PROGRAM === "")("llama-server", () => {
  let folder: string
  let model: string
  const { first } = realEngineSuite({
    kind: "llama-server",
    startMs: 60_000,
    async prepare() {
      folder = await mkdtemp(join(tmpdir(), "llama-"))
      model = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny.gguf")
    },
    command: (port) => ({
      program: PROGRAM,
      args: `-m ${model} --port ${port} -t 1 -np 2 --metrics -fa off --no-webui`.split(" "),
      env: { LD_LIBRARY_PATH: dirname(PROGRAM), DYLD_LIBRARY_PATH: dirname(PROGRAM) },
    }),
    cleanUp: () => rm(folder, { recursive: true }),
  })

  test("its slots are found out", async () => {
    await until(() => expect(first().host.twin.rules.maxSequences).toBe(2))
  })
})
