/** What a user is told when the real engine cannot be had, and that a running step leaves the event loop free. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { UserError } from "../../errors.ts"
import { tinyInParts } from "../../models/fixtures.ts"
import { TINY_PRESETS, tinyModel } from "../../models/tiny.ts"
import { Script } from "../engine.script.ts"
import { GREEDY } from "../port.ts"
import { openLlama } from "./engine.ts"
import { findLibrary } from "./files.ts"
import type { LlamaOptions } from "./options.ts"

let folder: string
let modelPath: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "slos-llama-"))
  modelPath = await tinyModel(TINY_PRESETS["tiny-f32"], folder, "tiny-f32")
})
afterAll(() => rm(folder, { recursive: true, force: true }))

function open(change: Partial<LlamaOptions> = {}) {
  const sizes = { threads: 1, maxSequences: 4, contextTokens: 256, maxBatchTokens: 128 }
  return openLlama({ modelPath, ...sizes, library: "cpu", ...change })
}

test("attention in tiles and plain attention find the same, and each says its least chunk", async () => {
  const prompt = Int32Array.from({ length: 100 }, (_, i) => 32 + ((i * 37) % 200))
  const found = []
  for (const flashAttention of [true, false]) {
    const engine = await open({ kvType: "f32", flashAttention })
    engine.open(1, prompt, { ...GREEDY, logprobs: 3 })
    const items = [{ id: 1, position: 0, tokens: prompt.length, sample: true, draft: 0 }]
    const step = await engine.execute({ number: 1, items, evict: [], release: [], predictedUs: 0 })
    const { token, logprob } = (step.ok ? step.rows[0]!.logprobs : undefined)![0]!
    found.push({ token, logprob, least: engine.limits.minChunkTokens, kind: engine.model.fingerprint })
    await engine.close()
  }
  const [tiles, plain] = found
  expect(tiles!.token).toBe(plain!.token)
  expect(tiles!.logprob).toBeCloseTo(plain!.logprob, 2)
  expect([tiles!.least, plain!.least]).toEqual([64, 16])
  // Their step times are not each other's.
  expect(tiles!.kind).not.toBe(plain!.kind)
})

describe("one line and a remedy for", () => {
  const cases: [string, () => Promise<Partial<LlamaOptions>>, RegExp][] = [
    [
      "a truncated model",
      async () => ({ modelPath: await damaged((bytes) => bytes.subarray(0, 300_000)) }),
      /cannot load .*not within the file bounds/,
    ],
    [
      "a damaged header",
      async () => ({ modelPath: await damaged((bytes) => bytes.fill(255, 8, 24)) }),
      /cannot load .*number of tensors/,
    ],
    ["a context beyond the model's", async () => ({ contextTokens: 100_000 }), /trained on contexts of 8192/],
    [
      "more KV than memory",
      async () => ({ maxSequences: 256, maxBatchTokens: 256, contextTokens: 8192, ...huge() }),
      /memory/,
    ],
    ["too many sequences", async () => ({ maxSequences: 257, maxBatchTokens: 512 }), /at most 256/],
    ["batches smaller than the sequences", async () => ({ maxBatchTokens: 2 }), /raise maxBatchTokens/],
    [
      "numbers that plain attention cannot have",
      async () => ({ kvType: "q8_0" as const, flashAttention: false }),
      /q8_0 needs flash attention/,
    ],
    ["no threads", async () => ({ threads: 0 }), /threads must be/],
    ["a folder without the library", async () => ({ library: folder }), /has no ggml-base/],
  ]
  test.each(cases)("%s", async (_, options, message) => {
    const error = await open(await options()).then(
      (engine) => engine.close().then(() => undefined),
      (problem: unknown) => problem,
    )
    expect(error).toBeInstanceOf(UserError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).not.toContain("\n")
  })

  test("a GPU library that is not installed", () => {
    expect(() => findLibrary("cuda", "linux-none")).toThrow(/npm install .*linux-none-cuda@/)
  })

  async function damaged(change: (bytes: Buffer) => Buffer): Promise<string> {
    const path = join(folder, "damaged.gguf")
    await writeFile(path, change(await readFile(modelPath)))
    return path
  }

  /** A pool that no machine has. */
  function huge(): Partial<LlamaOptions> {
    return { kvUnified: true, kvTokens: 2 ** 40, kvType: "f32" }
  }
})

test("timers run while a step computes", async () => {
  const engine = await open({ contextTokens: 2048, maxBatchTokens: 2000 })
  try {
    const run = new Script(engine)
    const id = run.open(new Int32Array(1900).fill(20))
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    await run.step([run.all(id)])
    clearInterval(timer)
    expect(engine.timing.decodeUs).toBeGreaterThan(5_000)
    expect(ticks).toBeGreaterThan(3)
  } finally {
    await engine.close()
  }
})

test("log lines go to the listener, whole", async () => {
  const lines: string[] = []
  const engine = await open({ onLog: (line) => lines.push(line) })
  await engine.close()
  expect(lines.some((line) => line.includes("llama_model_loader"))).toBe(true)
  expect(lines.some((line) => line.includes("\n"))).toBe(false)
})

describe("sizes by default", () => {
  const defaults = (path: string) =>
    openLlama({ modelPath: path, threads: 1, maxBatchTokens: 128, library: "cpu" })

  test("suit the model, and say why", async () => {
    const engine = await defaults(modelPath)
    const { contextTokens, maxSequences, kvTokens } = engine.limits
    expect({ contextTokens, kvTokens }).toEqual({ contextTokens: 4096, kvTokens: maxSequences * 4096 })
    expect(engine.kv.why).toContain("--context 4096")
    expect(engine.kv.bytes).toBeLessThanOrEqual(2 ** 30)
    await engine.close()
  })

  test("of a model that was trained on less are what it was trained on", async () => {
    const spec = { ...TINY_PRESETS["tiny-f32"], contextTokens: 1024 }
    const engine = await defaults(await tinyModel(spec, folder, "short"))
    expect(engine.limits.contextTokens).toBe(1024)
    expect(engine.kv.why).toContain("as it was trained")
    await engine.close()
  })
})

test("a model in several files answers as the same one in one", async () => {
  const spec = { ...TINY_PRESETS["tiny-f32"], layers: 2 }
  const said = async (path: string) => {
    const engine = await open({ modelPath: path })
    const script = new Script(engine)
    const id = script.open(Int32Array.of(5, 6, 7, 8))
    for (let n = 0; n < 12; n++) await script.step([script.all(id)])
    await engine.close()
    return script.output(id)
  }
  const whole = await said(await tinyModel(spec, folder, "whole"))
  expect(await said(await tinyInParts(spec, folder, "parts", 3))).toEqual(whole)
  expect(whole).toHaveLength(12)
})
