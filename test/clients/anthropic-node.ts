/** What is called of Anthropic's client for JavaScript. */
import Anthropic from "@anthropic-ai/sdk"
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod"
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod"
import { expect } from "vitest"
import { z } from "zod"
import type { Client } from "./client.ts"
import type { ClientServer } from "./server.ts"

const plant = z.object({ name: z.enum(["oak", "elm"]), tall: z.boolean() })
const question = "What is the weather in Oslo?"
const user = (content: string) => [{ role: "user" as const, content }]
const tool = {
  name: "weather",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } }, required: ["city"] },
}
const open = ({ url: baseURL, key: apiKey }: ClientServer) =>
  new Anthropic({ baseURL, apiKey, maxRetries: 0 })
const ask = ({ model }: ClientServer) => ({ model, max_tokens: 200 })

export const ANTHROPIC_NODE: Client = {
  ...{ name: "Anthropic's SDK (node)", packages: ["@anthropic-ai/sdk"], asks: "/v1/messages" },
  calls: {
    async "messages.create"(server) {
      const { content, stop_reason } = await open(server).messages.create({
        ...{ ...ask(server), system: "Be brief.", messages: user("hi") },
      })
      expect(stop_reason).toBe("end_turn")
      expect(content[0]).toMatchObject({ type: "text" })
    },
    async "messages.create, stream"(server) {
      const stream = await open(server).messages.create({
        ...ask(server),
        messages: user("hi"),
        stream: true,
      })
      const types: string[] = []
      for await (const { type } of stream) types.push(type)
      expect([types[0], types.at(-1)]).toEqual(["message_start", "message_stop"])
    },
    async "messages.stream, thoughts"(server) {
      const stream = open(server).messages.stream({
        ...{ ...ask(server), messages: user("THINK."), thinking: { type: "enabled", budget_tokens: 100 } },
      })
      let thoughts = ""
      stream.on("thinking", (delta) => (thoughts += delta))
      expect(await stream.finalText()).toBe("It is so.")
      expect(thoughts).toBe("Let me see.\n")
    },
    async "messages.create, tools and results"(server) {
      const { messages } = open(server)
      const asked = { ...ask(server), tools: [tool] }
      const first = await messages.create({ ...asked, messages: user(question) })
      const call = first.content.find((block) => block.type === "tool_use")!
      expect(call.input).toEqual({ city: "Oslo" })
      const next = await messages.create({
        ...asked,
        messages: [
          ...user(question),
          { role: "assistant", content: first.content },
          { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "cold" }] },
        ],
      })
      expect(next.content).toMatchObject([{ text: "It is cold in Oslo." }])
    },
    async "messages.parse, zod"(server) {
      const { parsed_output } = await open(server).messages.parse({
        ...{ ...ask(server), messages: user("hi"), output_config: { format: zodOutputFormat(plant) } },
      })
      expect(plant.parse(parsed_output)).toBeDefined()
    },
    async "beta.messages.toolRunner (thread: false)"(server) {
      const runner = open(server).beta.messages.toolRunner({
        ...{ ...ask(server), messages: user(question), thread: false },
        tools: [
          betaZodTool({
            ...{ name: "weather", description: "The weather.", inputSchema: z.object({ city: z.string() }) },
            run: ({ city }) => `cold in ${city}`,
          }),
        ],
      })
      expect((await runner).content).toMatchObject([{ text: "It is cold in Oslo." }])
    },
    async "messages.countTokens"(server) {
      const { input_tokens } = await open(server).messages.countTokens({
        ...{ model: server.model, messages: user("hi") },
      })
      expect(input_tokens).toBeGreaterThan(5)
    },
  },
}
