/** A real vLLM behind the port, and behind a whole gateway, where there is one: VLLM_PYTHON=/path/to/its/python (`npm run test:vllm-gateway` has it). */
import { execFile } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import OpenAI from "openai"
import { describe, expect, test } from "vitest"
import { VLLM_SETTINGS } from "../../../plugins/vllm/environment.ts"
import { until } from "../../serve/until-testing.ts"
import { openTestGateway } from "./gateway-testing.ts"
import { realEngineSuite } from "./real-engine.suite.ts"

const PYTHON = process.env.VLLM_PYTHON ?? ""
const MAKE_MODEL = join(import.meta.dirname, "../../../bench/vllm/make-model.py")

// Its steps take what the machine gives them.
describe.skipIf(PYTHON === "")("vLLM", { timeout: 900_000 }, () => {
  let folder: string
  const { first } = realEngineSuite({
    kind: "vllm",
    startMs: 900_000,
    async prepare() {
      folder = await mkdtemp(join(tmpdir(), "vllm-"))
      await promisify(execFile)(PYTHON, [MAKE_MODEL, "tiny", folder])
    },
    command: (port) => ({
      program: PYTHON,
      args: [
        ..."-m vllm.entrypoints.openai.api_server --load-format dummy --dtype float32 --enforce-eager".split(
          " ",
        ),
        ..."--host 127.0.0.1 --max-model-len 1024 --max-num-seqs 4 --block-size 32".split(" "),
        ..."--scheduling-policy priority".split(" "),
        ...["--served-model-name", "tiny", "--model", folder, "--port", String(port)],
      ],
      env: { ...VLLM_SETTINGS, PATH: `${dirname(PYTHON)}:${process.env.PATH}` },
    }),
    cleanUp: () => rm(folder, { recursive: true }),
  })

  /** With a gateway before the first one. */
  async function behindGateway(more: string, use: (openai: OpenAI) => Promise<void>) {
    const gateway = await openTestGateway([`vllm=${first().url}${more}`])
    try {
      await use(gateway.openai)
    } finally {
      await gateway.close()
    }
  }
  const hi = [{ role: "user" as const, content: "hi" }]
  const exact = { model: "ours", messages: hi, temperature: 0, max_tokens: 8 }

  test("its KV is found out", async () => {
    await until(() => expect(first().host.twin.rules.kvTokens).toBeGreaterThan(1000))
  })

  test("a gateway's answers are the engine's own", async () => {
    const direct = new OpenAI({ baseURL: `${first().url}/v1`, apiKey: "none" })
    const own = await direct.chat.completions.create({ ...exact, model: "tiny" })
    await behindGateway("", async (openai) => {
      const whole = await openai.chat.completions.create({ ...exact, n: 2 })
      expect(whole.choices.map(({ message }) => message.content)).toEqual(
        Array(2).fill(own.choices[0]!.message.content),
      )
      expect(whole.usage!.prompt_tokens).toBe(own.usage!.prompt_tokens)
      const stream = await openai.chat.completions.create({
        ...exact,
        ...{ stream: true as const, stream_options: { include_usage: true } },
      })
      let text = ""
      let completionTokens = 0
      for await (const { choices, usage } of stream) {
        text += choices[0]?.delta.content ?? ""
        completionTokens = usage?.completion_tokens ?? completionTokens
      }
      expect(text).toBe(own.choices[0]!.message.content)
      expect(completionTokens).toBe(own.usage!.completion_tokens)
      const completion = await openai.completions.create({ model: "ours", prompt: "hi", max_tokens: 3 })
      expect(completion.usage!.completion_tokens).toBe(3)
    })
  })

  test("what only the engine knows reaches it: structured output, its own fields", async () => {
    await behindGateway("", async (openai) => {
      const chosen = await openai.chat.completions.create({
        ...exact,
        structured_outputs: { choice: ["red", "green"] },
      } as OpenAI.ChatCompletionCreateParamsNonStreaming)
      expect(["red", "green"]).toContain(chosen.choices[0]!.message.content)
      const schema = {
        type: "object",
        properties: { a: { enum: [1, 2] } },
        required: ["a"],
        additionalProperties: false,
      }
      const shaped = await openai.chat.completions.create({
        ...{ ...exact, max_tokens: 60 },
        response_format: { type: "json_schema", json_schema: { name: "one", schema, strict: true } },
      })
      // Random weights may write nothing but spaces between its tokens.
      expect(shaped.choices[0]!.message.content).toMatch(/^\s*\{\s*("a"\s*(:\s*([12]\s*(\}\s*)?)?)?)?$/)
    })
  })

  test("what this server reads and vLLM would refuse is answered", async () => {
    const tool = { type: "function", function: { name: "f", parameters: { type: "object" } } }
    const called = {
      ...{ role: "assistant", content: null },
      tool_calls: [{ function: { name: "f", arguments: { x: 1 } } }],
    }
    const odd: object[] = [
      ...[{ stop: "" }, { stop: [""] }, { tools: [], tool_choice: "auto" }, { tool_choice: "none" }],
      ...[{ seed: 2 ** 63 }, { priority: 5 }, { top_k: 0 }, { repeat_penalty: 1.1 }, { reasoning: false }],
      ...[{ truncate_prompt_tokens: 5000 }, { max_tokens: null, max_completion_tokens: 8 }],
      { messages: [{ ...hi[0], name: null }] },
      { messages: [...hi, called, { role: "tool", tool_call_id: null, content: null }, ...hi] },
      { messages: [...hi, { role: "assistant", content: "a" }], continue_final_message: true },
    ]
    const gateway = await openTestGateway([`vllm=${first().url}`])
    const post = async (path: string, body: object) => {
      const response = await fetch(`${gateway.url}${path}`, {
        ...{ method: "POST", headers: { "content-type": "application/json" } },
        body: JSON.stringify(body),
      })
      expect(response.status, `${JSON.stringify(body)}: ${await response.clone().text()}`).toBe(200)
      return (await response.json()) as { usage: Record<string, number>; stop_reason?: string }
    }
    try {
      for (const fields of odd) await post("/v1/chat/completions", { ...exact, ...fields })
      const allowed = { mode: "auto", tools: [{ type: "function", function: { name: "f" } }] }
      const choice = { tool_choice: { type: "allowed_tools", allowed_tools: allowed } }
      // It was not started with a parser of calls, and says so of these tools as of any.
      const tools = gateway.openai.chat.completions.create({ ...exact, tools: [tool], ...choice } as never)
      await expect(tools).rejects.toMatchObject({ message: expect.stringMatching(/auto.*tool/i) })
      await post("/v1/completions", { model: "ours", prompt: "hi", min_tokens: 50 })
      // More than the context, and more than the prompt leaves of it.
      for (const max_tokens of [64_000, 1020]) {
        const ask = { model: "ours", messages: hi, max_tokens, temperature: 0, ignore_eos: true }
        const { usage } = await post("/v1/messages", ask)
        expect(usage.input_tokens! + usage.output_tokens!).toBe(1024)
      }
    } finally {
      await gateway.close()
    }
  })

  test("its refusals are told in its words", async () => {
    await behindGateway("", async (openai) => {
      const tooLong = openai.completions.create({
        model: "ours",
        prompt: "word ".repeat(3000),
        max_tokens: 3,
      })
      await expect(tooLong).rejects.toMatchObject({ status: 400, message: expect.stringMatching(/1024/) })
    })
  })

  test("deadlines reach it as priorities", async () => {
    await behindGateway(",priority", async (openai) => {
      const answers = Array.from({ length: 10 }, () => openai.chat.completions.create(exact))
      for (const { choices } of await Promise.all(answers)) expect(choices[0]!.finish_reason).toBe("length")
    })
  })
})
