/** `slos-serve config`: what a config file says, whether it is right, and what it is made of. */
import type { Command } from "commander"
import { digestOf, makeKey } from "../config/api-keys.ts"
import { UserError } from "../errors.ts"
import { addServeOptions } from "./serve.ts"
import type { ServeOptions } from "./serve-options.ts"

const EXAMPLES = `
Examples:
  # every fault of a file, with its line and what to do
  slos-serve config check slos.yaml

  # what a server would run with, and where each value comes from
  slos-serve config show --config slos.yaml --port 9000

  # a new API key: for the client the key, for the file its hash
  slos-serve config key

  # for editors: # yaml-language-server: $schema=config.schema.json
  slos-serve config schema > config.schema.json

docs/config.md has a complete example.`

export function register(program: Command): void {
  const config = program.command("config").description("check and show a config file, make an API key")
  config.addHelpText("after", EXAMPLES)
  config
    .command("check")
    .description("read a file and say all that is wrong with it; exit code 2 where something is")
    .argument("[file]", "the file (default: what SLOS_SERVE_CONFIG names)")
    .action(async (file: string | undefined) => {
      const path = file ?? process.env.SLOS_SERVE_CONFIG
      if (!path) throw new UserError("say which file: slos-serve config check slos.yaml")
      process.exitCode = await (await import("./config-show.ts")).check(path)
    })
  const show = addServeOptions(config.command("show"))
  show
    .description("what `serve` would run with by the same options, and where each value comes from")
    .option("--json", "as JSON")
    .action(async (options: ServeOptions & { json?: boolean }) => {
      const { shown } = await import("./config-show.ts")
      process.stdout.write(shown(show, options))
    })
  config
    .command("schema")
    .description("the JSON Schema of the file, for editors")
    .action(async () => {
      const { configJsonSchema } = await import("../config/json-schema.ts")
      process.stdout.write(`${JSON.stringify(configJsonSchema(), null, 2)}\n`)
    })
  config
    .command("key")
    .description("make an API key, and print it with the hash that the file has of it")
    .option("--stdin", "hash the key that comes on the standard input, in place of a new one")
    .option("--json", "as JSON")
    .action(async ({ stdin, json }: { stdin?: boolean; json?: boolean }) => {
      const key = stdin ? await keyFromInput() : makeKey()
      const hash = `sha256:${digestOf(key)}`
      const made = stdin ? { hash } : { key, hash }
      const lines = Object.entries(made).map(([name, value]) => `${name.padEnd(5)} ${value}\n`)
      process.stdout.write(json ? `${JSON.stringify(made)}\n` : lines.join(""))
    })
}

async function keyFromInput(): Promise<string> {
  let text = ""
  for await (const piece of process.stdin) text += piece
  const key = text.trim()
  if (/^[\x21-\x7e]{1,512}$/.test(key)) return key
  throw new UserError("what comes on the standard input must be a key: 1 to 512 visible ASCII characters")
}
