/** What is called of Vercel's AI SDK: with its default model, which asks /v1/responses, and with its models for chats. */
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { generateText, type LanguageModel, Output, stepCountIs, streamText, tool } from "ai"
import { expect } from "vitest"
import { z } from "zod"
import type { Client } from "./client.ts"
import type { ClientServer } from "./server.ts"

const plant = z.object({ name: z.enum(["oak", "elm"]), height: z.int().min(0).max(9) })
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.enum(["Oslo", "Rome"]) }),
  execute: async ({ city }) => `cold in ${city}`,
})
const question = "What is the weather in Oslo?"

function calls(modelOf: (server: ClientServer) => LanguageModel): Client["calls"] {
  return {
    async generateText(server) {
      const { text, usage, finishReason } = await generateText({ model: modelOf(server), prompt: "hi" })
      expect(text.length).toBeGreaterThan(10)
      expect(finishReason).toBe("stop")
      expect(usage.outputTokens).toBeGreaterThan(5)
    },
    async "generateText, a conversation"(server) {
      const { finishReason } = await generateText({
        ...{ model: modelOf(server), instructions: "Be brief.", maxOutputTokens: 3 },
        messages: [
          { role: "user", content: "One?" },
          { role: "assistant", content: "One." },
          { role: "user", content: [{ type: "text", text: "Two?" }] },
        ],
      })
      expect(finishReason).toBe("length")
    },
    async "generateText, thoughts"(server) {
      const { text, reasoningText } = await generateText({
        ...{ model: modelOf(server), prompt: "THINK." },
        providerOptions: { openai: { reasoningSummary: "auto", forceReasoning: true } },
      })
      expect(text).toBe("It is so.")
      expect(reasoningText).toBe("Let me see.\n")
    },
    async streamText(server) {
      const { textStream, usage } = streamText({ model: modelOf(server), prompt: "hi" })
      const pieces: string[] = []
      for await (const piece of textStream) pieces.push(piece)
      expect(pieces.length).toBeGreaterThan(1)
      expect((await usage).outputTokens).toBeGreaterThan(5)
    },
    async "generateText, tools in a loop"(server) {
      const { text, steps } = await generateText({
        ...{ model: modelOf(server), prompt: question, tools: { weather }, stopWhen: stepCountIs(3) },
      })
      expect(steps).toHaveLength(2)
      expect(steps[0]!.toolResults[0]).toMatchObject({ toolName: "weather", output: "cold in Oslo" })
      expect(text).toBe("It is cold in Oslo.")
    },
    async "streamText, tools in a loop"(server) {
      const { steps, text } = streamText({
        ...{ model: modelOf(server), prompt: question, tools: { weather }, stopWhen: stepCountIs(3) },
      })
      expect(await text).toBe("It is cold in Oslo.")
      expect((await steps)[0]!.toolCalls[0]).toMatchObject({ input: { city: "Oslo" } })
    },
    async "generateText, a tool that must be called"(server) {
      const { toolCalls } = await generateText({
        ...{ model: modelOf(server), prompt: "hi", tools: { weather }, toolChoice: "required" },
      })
      expect(["Oslo", "Rome"]).toContain((toolCalls[0]!.input as { city: string }).city)
    },
    async "generateText, Output.object"(server) {
      const { output } = await generateText({
        ...{ model: modelOf(server), prompt: "hi", output: Output.object({ schema: plant }) },
      })
      expect(plant.parse(output)).toEqual(output)
    },
    async "streamText, Output.object"(server) {
      const { output } = streamText({
        ...{ model: modelOf(server), prompt: "hi", output: Output.object({ schema: plant }) },
      })
      expect(plant.parse(await output)).toBeDefined()
    },
  }
}

const openai = ({ v1: baseURL, key: apiKey }: ClientServer) => createOpenAI({ baseURL, apiKey })

export const AI_SDK: readonly Client[] = [
  {
    ...{
      name: "ai, @ai-sdk/openai (its default)",
      packages: ["ai", "@ai-sdk/openai"],
      asks: "/v1/responses",
    },
    calls: calls((server) => openai(server)(server.model)),
  },
  {
    ...{
      name: "ai, @ai-sdk/openai (chat)",
      packages: ["ai", "@ai-sdk/openai"],
      asks: "/v1/chat/completions",
    },
    calls: withoutThoughts(calls((server) => openai(server).chat(server.model))),
  },
  {
    name: "ai, @ai-sdk/openai-compatible",
    packages: ["ai", "@ai-sdk/openai-compatible"],
    asks: "/v1/chat/completions",
    calls: calls((server) =>
      createOpenAICompatible({
        ...{ name: "ours", baseURL: server.v1, apiKey: server.key },
        includeUsage: true,
        supportsStructuredOutputs: true,
      })(server.model),
    ),
  },
]

/** OpenAI's own chats show no thoughts, and its client reads none there. */
function withoutThoughts({ "generateText, thoughts": _, ...others }: Client["calls"]): Client["calls"] {
  return others
}
