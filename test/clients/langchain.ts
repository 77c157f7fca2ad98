/** What is called of LangChain.js. */
import { HumanMessage, ToolMessage } from "@langchain/core/messages"
import { tool } from "@langchain/core/tools"
import { ChatOpenAI } from "@langchain/openai"
import { expect } from "vitest"
import { z } from "zod"
import type { Client } from "./client.ts"
import type { ClientServer } from "./server.ts"

const plant = z.object({ name: z.enum(["oak", "elm"]), height: z.int().min(0).max(9) })
const question = "What is the weather in Oslo?"
const weather = tool(async ({ city }: { city: string }) => `cold in ${city}`, {
  ...{ name: "weather", description: "The weather of a city.", schema: z.object({ city: z.string() }) },
})

function calls(open: (server: ClientServer) => ChatOpenAI): Client["calls"] {
  return {
    async invoke(server) {
      const message = await open(server).invoke("hi")
      expect(message.text.length).toBeGreaterThan(10)
      expect(message).toHaveProperty("usage_metadata.output_tokens")
    },
    async stream(server) {
      let text = ""
      for await (const chunk of await open(server).stream("hi")) text += chunk.text
      expect(text.length).toBeGreaterThan(10)
    },
    async "bindTools, and results"(server) {
      const model = open(server).bindTools([weather])
      const asked = new HumanMessage(question)
      const first = await model.invoke([asked])
      const [call] = first.tool_calls!
      expect(call).toMatchObject({ name: "weather", args: { city: "Oslo" } })
      const result = new ToolMessage({ tool_call_id: call!.id!, content: "cold in Oslo" })
      expect((await model.invoke([asked, first, result])).text).toBe("It is cold in Oslo.")
    },
    async withStructuredOutput(server) {
      const parsed = await open(server).withStructuredOutput(plant).invoke("hi")
      expect(plant.parse(parsed)).toEqual(parsed)
    },
  }
}

const options = ({ v1: baseURL, key: apiKey, model }: ClientServer) => ({
  ...{ model, apiKey, maxRetries: 0, configuration: { baseURL } },
})

export const LANGCHAIN: readonly Client[] = [
  {
    ...{ name: "LangChain.js", packages: ["@langchain/openai"], asks: "/v1/chat/completions" },
    calls: calls((server) => new ChatOpenAI(options(server))),
  },
  {
    ...{ name: "LangChain.js, useResponsesApi", packages: ["@langchain/openai"], asks: "/v1/responses" },
    calls: calls((server) => new ChatOpenAI({ ...options(server), useResponsesApi: true })),
  },
]
