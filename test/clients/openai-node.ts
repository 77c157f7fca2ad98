/** What is called of OpenAI's client for JavaScript. */
import OpenAI from "openai"
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod"
import { expect } from "vitest"
import { z } from "zod"
import type { Client } from "./client.ts"
import type { ClientServer } from "./server.ts"

const plant = z.object({ name: z.enum(["oak", "elm"]), height: z.int().min(0).max(9) })
const question = "What is the weather in Oslo?"
const messages = [{ role: "user" as const, content: question }]
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
const tools = [{ type: "function" as const, name: "weather", parameters, strict: false }]

const open = ({ v1: baseURL, key: apiKey }: ClientServer) => new OpenAI({ baseURL, apiKey, maxRetries: 0 })

export const OPENAI_NODE: Client = {
  ...{
    name: "openai (node)",
    packages: ["openai"],
    asks: "/v1/chat/completions, /v1/completions, /v1/responses",
  },
  calls: {
    async "chat.completions.create"(server) {
      const { choices, usage } = await open(server).chat.completions.create({ model: server.model, messages })
      expect(choices[0]!.finish_reason).toBe("stop")
      expect(usage!.completion_tokens).toBeGreaterThan(5)
    },
    async "chat.completions.create, stream"(server) {
      const stream = await open(server).chat.completions.create({
        ...{ model: server.model, messages, stream: true, stream_options: { include_usage: true } },
      })
      const chunks: OpenAI.ChatCompletionChunk[] = []
      for await (const chunk of stream) chunks.push(chunk)
      expect(chunks.at(-1)!.usage!.total_tokens).toBeGreaterThan(5)
    },
    async "chat.completions.parse, zod"(server) {
      const { choices } = await open(server).chat.completions.parse({
        ...{ model: server.model, messages, response_format: zodResponseFormat(plant, "plant") },
      })
      expect(plant.parse(choices[0]!.message.parsed)).toBeDefined()
    },
    async "chat.completions.runTools"(server) {
      const runner = open(server).chat.completions.runTools({
        ...{ model: server.model, messages },
        tools: [
          {
            type: "function",
            function: {
              ...{ name: "weather", description: "The weather of a city.", parameters },
              parse: (text: string) => JSON.parse(text) as { city: string },
              function: ({ city }: { city: string }) => `cold in ${city}`,
            },
          },
        ],
      })
      expect(await runner.finalContent()).toBe("It is cold in Oslo.")
    },
    async "completions.create"(server) {
      const { choices } = await open(server).completions.create({ model: server.model, prompt: "hi" })
      expect(choices[0]!.text.length).toBeGreaterThan(5)
    },
    async "models.list"(server) {
      const { data } = await open(server).models.list()
      expect(data.map(({ id }) => id)).toContain(server.model)
    },
    async "responses.create, and on with previous_response_id"(server) {
      const { responses } = open(server)
      const first = await responses.create({ model: server.model, input: question, tools })
      const call = first.output.find((item) => item.type === "function_call")!
      const { output_text } = await responses.create({
        ...{ model: server.model, tools, previous_response_id: first.id },
        input: [{ type: "function_call_output", call_id: call.call_id, output: "cold" }],
      })
      expect(output_text).toBe("It is cold in Oslo.")
    },
    async "responses.stream"(server) {
      const stream = open(server).responses.stream({ model: server.model, input: "hi" })
      let text = ""
      for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta
      expect((await stream.finalResponse()).output_text).toBe(text)
    },
    async "responses.parse, zod"(server) {
      const text = { format: zodTextFormat(plant, "plant") }
      const { output_parsed } = await open(server).responses.parse({ model: server.model, input: "hi", text })
      expect(plant.parse(output_parsed)).toBeDefined()
    },
    async "responses.retrieve, inputItems.list, delete"(server) {
      const { responses } = open(server)
      const { id, output_text } = await responses.create({ model: server.model, input: "hi" })
      expect(await responses.retrieve(id)).toMatchObject({ output: [{ content: [{ text: output_text }] }] })
      expect((await responses.inputItems.list(id)).data).toHaveLength(1)
      await responses.delete(id)
      await expect(responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    },
  },
}
