/** lm-evaluation-harness against a real server: node test/lm-eval/run.ts [pytest's arguments].
 * Without a package index, or a Python, it says so and is done: nothing of ours is wrong then. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Server } from "../../bench/real/servers.ts"
import { freePorts } from "../../src/free-port.ts"
import { cacheFolder } from "../../src/models/cache.ts"
import { TINY_PRESETS, tinyModel } from "../../src/models/tiny.ts"
import {
  madeOrNull,
  type PythonEnvironment,
  pytestPasses,
  pythonEnvironment,
  requirements,
} from "../python-environment.ts"

const HERE = import.meta.dirname
const MAIN = resolve(HERE, "../../src/cli/main.ts")
/** Its weights are numbers of 32 bits: what it says can be computed elsewhere, to the last digits. */
const MODEL = "tiny-f32"
const RECIPE = requirements("lm-eval", join(HERE, "requirements.txt"), "about 800 MB, a minute")
const say = (line: string) => console.log(`test:lm-eval: ${line}`)

async function passes(environment: PythonEnvironment): Promise<boolean> {
  const logs = mkdtempSync(join(tmpdir(), "slos-serve-lm-eval-"))
  const [port] = await freePorts(1)
  // The harness writes prompts with the model's control tokens itself, and wants them read as those.
  const options = ["--model", MODEL, "--port", String(port), "--parse-special", "always"]
  const system = { name: "slos-serve", kind: "slos-serve" } as const
  const command = [process.execPath, MAIN, "serve", ...options]
  const server = await Server.start(system, command, port!, join(logs, "server.log"))
  try {
    await server.ready(120_000)
    const env = {
      LM_EVAL_URL: server.target.url,
      LM_EVAL_MODEL: server.target.model,
      LM_EVAL_GGUF: await tinyModel(TINY_PRESETS[MODEL], join(cacheFolder(), "models"), MODEL),
      HF_HUB_OFFLINE: "1",
      HF_HOME: join(environment.folder, "huggingface"),
      TQDM_DISABLE: "1",
    }
    return await pytestPasses(environment, HERE, { env, args: process.argv.slice(2) })
  } finally {
    await server.stop()
    rmSync(logs, { recursive: true })
  }
}

const environment = madeOrNull("lm-eval", () => pythonEnvironment(RECIPE, say), say)
if (environment !== null && !(await passes(environment))) process.exitCode = 1
