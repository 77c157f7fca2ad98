/** `slos-serve explain`: why a request was slow, by what its server remembers of it; or which ones missed of late. */
import type { Command } from "commander"
import { UserError } from "../errors.ts"
import type { AnswerJson } from "../explain/json.ts"
import { describeAnswers, describeList } from "./explain-show.ts"
import { numberIn, wholeNumber } from "./numbers.ts"

interface Options {
  url: string
  key?: string
  missed?: boolean
  limit: number
  since?: number
  json?: boolean
}

const EXAMPLES = `
Examples:
  # the last requests, and those of the last ten minutes that missed an objective
  slos-serve explain
  slos-serve explain --missed --since 600

  # one of them, by the id of its response (chatcmpl-...) or its header x-request-id
  slos-serve explain chatcmpl-5f0c2b1e-8d7a-4a63-9f5e-2f8f6c1f9b1d --url http://gateway:8080

  # of a server whose tenants have keys
  slos-serve explain --missed --key $ALICE_KEY --json`

export function register(program: Command): void {
  program
    .command("explain")
    .description(
      "say why a request was slow: where its time went, whether it was turned down, what would have kept it",
    )
    .argument("[id]", "of a request; without it the last ones are listed")
    .option("--url <url>", "the server (without /v1), or a planner's metrics port", "http://127.0.0.1:8080")
    .option("--key <key>", "an API key, where tenants have keys; default: the environment's SLOS_SERVE_KEY")
    .option("--missed", "list only what missed an objective")
    .option("--limit <n>", "list so many at most", wholeNumber(1, 1000), 20)
    .option("--since <s>", "list only what ended in the last so many seconds", numberIn(1, 1e9))
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLES)
    .action((id: string | undefined, options: Options) => run(id, options))
}

async function run(id: string | undefined, options: Options): Promise<void> {
  const found = await ask(addressOf(id, options), options)
  if (options.json) {
    process.stdout.write(`${JSON.stringify(found, null, 2)}\n`)
    return
  }
  const { answers, requests } = found as { answers?: AnswerJson[]; requests?: AnswerJson[] }
  process.stdout.write(`${answers ? describeAnswers(answers) : describeList(requests ?? [], options)}\n`)
}

function addressOf(id: string | undefined, { url, missed, limit, since }: Options): string {
  const base = `${url.replace(/\/+$/, "")}/v1/slo/requests`
  if (id !== undefined) return `${base}/${encodeURIComponent(id)}`
  const query = new URLSearchParams({ limit: String(limit) })
  if (missed) query.set("missed", "true")
  if (since !== undefined) query.set("since", (Date.now() / 1000 - since).toFixed(3))
  return `${base}?${query}`
}

const FETCH_MS = 30_000

async function ask(address: string, { key = process.env.SLOS_SERVE_KEY }: Options): Promise<unknown> {
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` }
  let response: Response
  let body: unknown
  try {
    response = await fetch(address, { headers, signal: AbortSignal.timeout(FETCH_MS) })
    body = await response.json()
  } catch (error) {
    const { cause, message } = error as Error & { cause?: { code?: string } }
    throw new UserError(`${address}: no answer (${cause?.code ?? message}); check --url`)
  }
  if (response.ok) return body
  const { error } = body as { error?: { message?: string } }
  throw new UserError(error?.message ?? `${address}: ${response.status}; is it a slos-serve server?`)
}
