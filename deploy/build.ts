/** The package: JavaScript of all that commands and threads begin with, types of what other programs import. */
import { execFileSync } from "node:child_process"
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const ROOT = resolve(import.meta.dirname, "..")
const DIST = join(ROOT, "dist")
/** Files that are read beside the code. */
const READ = ["http/page/index.html", "fleet/picker/ext-proc.proto"]
const MODULE_BESIDE = /moduleBeside\(import\.meta\.url, "([^"]+)"\)/g

function tsc(project: string): void {
  const program = fileURLToPath(import.meta.resolve("typescript/package.json"))
  const { bin } = JSON.parse(readFileSync(program, "utf8")) as { bin: { tsc: string } }
  execFileSync(process.execPath, [join(dirname(program), bin.tsc), "-p", project], {
    cwd: ROOT,
    stdio: "inherit",
  })
}

/** A thread whose module is missing would be found out by a user. */
function checkThreads(): void {
  for (const path of readdirSync(DIST, { recursive: true, encoding: "utf8" })) {
    if (!path.endsWith(".js")) continue
    for (const [, name] of readFileSync(join(DIST, path), "utf8").matchAll(MODULE_BESIDE)) {
      const module = join(DIST, dirname(path), `${name}.js`)
      if (!existsSync(module))
        throw new Error(`${module} is missing: add it to "files" in tsconfig.build.json`)
    }
  }
}

rmSync(DIST, { recursive: true, force: true })
tsc("tsconfig.build.json")
for (const path of READ) {
  mkdirSync(dirname(join(DIST, path)), { recursive: true })
  copyFileSync(join(ROOT, "src", path), join(DIST, path))
}
tsc("tsconfig.types.json")
checkThreads()
chmodSync(join(DIST, "cli/main.js"), 0o755)
