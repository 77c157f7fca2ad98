/** Renders the chart for every case of its `ci` folder into `deploy/rendered`, which is what people read, and what the test
 * checks where there is no helm: `node deploy/render.ts`. Takes helm from the path, or from $HELM. */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const CHART = join(import.meta.dirname, "helm/slos-serve")
export const RENDERED = join(import.meta.dirname, "rendered")
const KUBERNETES = "1.31.0"

export const cases = readdirSync(join(CHART, "ci")).map((file) => file.replace(/\.yaml$/, ""))

/** null: there is none. */
export function helm(...args: string[]): string | null {
  try {
    return execFileSync(process.env.HELM ?? "helm", args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null
    throw error
  }
}

export const lint = (name: string) => helm("lint", "--strict", CHART, "-f", join(CHART, "ci", `${name}.yaml`))

/** As committed; null: there is no helm. Further arguments are helm's. */
export function render(name: string, ...more: string[]): string | null {
  const values = join(CHART, "ci", `${name}.yaml`)
  const text = helm(
    "template",
    "slos",
    CHART,
    "-n",
    "serving",
    "--kube-version",
    KUBERNETES,
    "-f",
    values,
    ...more,
  )
  return text === null ? null : `${headOf(name)}\n${text}`
}

/** Says of which chart a rendering is: one that is older than its chart is noticed without helm. */
export function headOf(name: string): string {
  const hash = createHash("sha256")
  const files = ["values.yaml", "values.schema.json", "Chart.yaml", join("ci", `${name}.yaml`)]
  const templates = readdirSync(join(CHART, "templates"))
    .sort()
    .map((file) => join("templates", file))
  for (const file of [...files, ...templates]) hash.update(file).update(readFileSync(join(CHART, file)))
  return `# helm template slos deploy/helm/slos-serve -n serving -f deploy/helm/slos-serve/ci/${name}.yaml (chart ${hash.digest("hex").slice(0, 16)})`
}

if (import.meta.main) {
  mkdirSync(RENDERED, { recursive: true })
  for (const name of cases) {
    const text = render(name)
    if (text === null) {
      process.stderr.write(
        "error: there is no helm; install it, or say where it is with HELM=/path/to/helm\n",
      )
      process.exit(2)
    }
    writeFileSync(join(RENDERED, `${name}.yaml`), text)
  }
}
