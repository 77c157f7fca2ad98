/** Options of a gateway. */
import { Command, Option } from "commander"
import { expect, test } from "vitest"
import { addBackendOptions, type BackendOptions, checkGatewayOptions } from "./backend-options.ts"

function parse(...words: string[]): { command: Command; options: BackendOptions } {
  const command = addBackendOptions(new Command("serve"))
  command.option("--model <name>", "", "default").addOption(new Option("--max-batch-ms <ms>"))
  command.parse(words, { from: "user" })
  return { command, options: command.opts<BackendOptions>() }
}

test("every --backend counts", () => {
  const { options } = parse(
    "--backend",
    "http://a:1",
    "--backend",
    "vllm=http://b:2,weight=2",
    "--backend-file",
    "f",
  )
  expect(options.backend).toMatchObject([
    { url: "http://a:1" },
    { url: "http://b:2", kind: "vllm", weight: 2 },
  ])
  expect(options).toMatchObject({ backendFile: "f", backendTimeout: 300 })
})

test("options of an engine are refused beside it, where they were said", () => {
  expect(() => checkGatewayOptions(parse("--backend", "http://a:1").command)).not.toThrow()
  expect(() => checkGatewayOptions(parse("--model", "tiny").command)).toThrow("--model is of an engine")
  expect(() => checkGatewayOptions(parse("--max-batch-ms", "9").command)).toThrow(
    "--max-batch-ms is of an engine",
  )
})
