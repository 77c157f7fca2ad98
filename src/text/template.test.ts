/** A chat template that cannot be read, and messages that one refuses, are told to the user. */
import { expect, it } from "vitest"
import { UserError } from "../errors.ts"
import { ChatTemplate } from "./template.ts"

const model = (chatTemplate: string | null) => ({ chatTemplate, bosText: "<s>", eosText: "</s>" })
const messages = [{ role: "developer", content: "Be brief." }]

it("a template that is none is one line for the user", () => {
  const open = () => new ChatTemplate(model("{% for message in %}"))
  expect(open).toThrow(UserError)
  expect(open).toThrow(/chat template cannot be read/)
})

it("messages that a template refuses are a 400 with its words", () => {
  const template = new ChatTemplate(model("{{ raise_exception('roles must alternate') }}"))
  const render = () => template.render({ messages, tools: null, variables: {} })
  expect(render).toThrow(expect.objectContaining({ status: 400, code: "chat_template_error" }))
  expect(render).toThrow(/roles must alternate/)
})

it("a developer is a system to templates, and the request's variables do not replace its messages", () => {
  const template = new ChatTemplate(model("{{ bos_token }}{{ messages[0].role }} {{ kind }}"))
  const variables = { kind: "x", messages: [], bos_token: "" }
  expect(template.render({ messages, tools: null, variables })).toBe("<s>system x")
})
