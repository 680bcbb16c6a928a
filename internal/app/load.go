package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/accrue-billing/accrue/internal/secret"
)

const envPrefix = "ACCRUE_"

// envName is the variable of the environment that stands for an option.
func envName(option string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// conventional are the variables that platforms set and people expect, for options that have one. Ours
// outrank them.
var conventional = map[string]string{"database-url": "DATABASE_URL"}

// Environment looks up a variable, as os.LookupEnv does.
type Environment func(name string) (value string, ok bool)

// parse reads the command line, the environment and the configuration file into the command tree. What
// it returns for a mistake is a *UsageError. The context is nil when help was asked for and given.
func parse(tree *commands, args []string, env Environment, stdout, stderr io.Writer) (_ *kong.Context, err error) {
	if len(args) == 0 {
		return nil, &UsageError{[]string{"a command is missing, such as serve; accrue --help lists them"}}
	}
	exited := false
	parser, err := kong.New(tree,
		kong.Name("accrue"),
		kong.Description("Self-service billing for companies that sell voice and text APIs."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.PostBuild(describeEnvironment),
	)
	if err != nil {
		return nil, err
	}
	file, err := readFile(parser, args, env)
	if err != nil {
		return nil, err
	}
	if err := kong.Resolvers(file, environment(env)).Apply(parser); err != nil { // the last that knows a value wins
		return nil, err
	}
	ctx, err := parser.Parse(args)
	if exited {
		return nil, nil
	}
	if err != nil {
		return nil, &UsageError{[]string{redactArguments(parser, err.Error(), args)}}
	}
	return ctx, nil
}

// describeEnvironment adds the name of each option's variable to its help.
func describeEnvironment(k *kong.Kong) error {
	for _, f := range k.Model.Flags {
		if f.Name != "help" {
			names := envName(f.Name)
			if other, ok := conventional[f.Name]; ok {
				names += " or " + other
			}
			f.Help = strings.TrimSuffix(f.Help, ".") + " [" + names + "]"
		}
	}
	return nil
}

// isSecret reports whether an option's value must not be shown.
func isSecret(f *kong.Flag) bool {
	t := f.Target.Type()
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t == reflect.TypeFor[secret.Text]()
}

// redactArguments takes secrets that were given on the command line out of a message about it.
func redactArguments(k *kong.Kong, message string, args []string) string {
	for _, f := range k.Model.Flags {
		if !isSecret(f) {
			continue
		}
		for i, arg := range args {
			value, ok := strings.CutPrefix(arg, "--"+f.Name+"=")
			if arg == "--"+f.Name && i+1 < len(args) {
				value, ok = args[i+1], true
			}
			if ok && value != "" {
				message = strings.ReplaceAll(message, value, "[redacted]")
			}
		}
	}
	return message
}

// environment resolves options from ACCRUE_… variables. For a secret, ACCRUE_…_FILE may name a file
// that holds it, as container platforms hand secrets out.
func environment(env Environment) kong.Resolver {
	var r kong.ResolverFunc = func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if value, ok := env(envName(flag.Name)); ok {
			return value, nil
		}
		if path, ok := env(envName(flag.Name) + "_FILE"); ok && isSecret(flag) {
			b, err := os.ReadFile(path) //nolint:gosec // the operator names the file
			if err != nil {
				return nil, err
			}
			return strings.TrimSpace(string(b)), nil
		}
		if value, ok := env(conventional[flag.Name]); ok {
			return value, nil
		}
		return nil, nil
	}
	return r
}

// notOurs are variables that have our prefix and are none of the program's: of its tests, and those that Kubernetes
// sets in every Pod for a Service whose name begins with accrue.
var notOurs = regexp.MustCompile(`^ACCRUE_(TEST_.*|STRIPE_MOCK|(.*_)?SERVICE_(HOST|PORT(_.*)?)|(.*_)?PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// WithoutEffect returns those of the variables (NAME=value) that look like options and are none: a misspelt one would
// be silently without effect.
func WithoutEffect(environ []string) (names []string) {
	var tree commands
	parser, err := kong.New(&tree)
	if err != nil {
		return nil // parse says so
	}
	known := map[string]bool{}
	note := func(flags []*kong.Flag) {
		for _, f := range flags {
			known[envName(f.Name)] = true
			known[envName(f.Name)+"_FILE"] = isSecret(f)
		}
	}
	note(parser.Model.Flags)
	for _, command := range parser.Model.Leaves(false) {
		note(command.Flags)
	}
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && !known[name] && !notOurs.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// readFile resolves options from the YAML file that --config or ACCRUE_CONFIG names. A line that is no
// option is refused: a misspelt option must not be silently without effect.
func readFile(k *kong.Kong, args []string, env Environment) (kong.Resolver, error) {
	path, _ := env(envName("config"))
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--config="); ok {
			path = value
		} else if arg == "--config" && i+1 < len(args) {
			path = args[i+1]
		}
	}
	values := map[string]any{}
	if path != "" {
		b, err := os.ReadFile(path) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, &UsageError{[]string{"config: " + err.Error()}}
		}
		if err := yaml.Unmarshal(b, &values); err != nil {
			// The parser's message quotes the lines around, which may hold secrets.
			line := ""
			if where, ok := errors.AsType[yaml.Error](err); ok && where.GetToken() != nil && where.GetToken().Position != nil {
				line = fmt.Sprintf(", line %d", where.GetToken().Position.Line)
			}
			return nil, &UsageError{[]string{fmt.Sprintf("config: %s%s is not a YAML map of options", path, line)}}
		}
	}
	var unknown []string
	for name := range values {
		if !slices.ContainsFunc(k.Model.Flags, func(f *kong.Flag) bool { return f.Name == name && name != "config" && name != "help" }) {
			unknown = append(unknown, fmt.Sprintf("%s: no such option (in %s)", name, path))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, &UsageError{unknown}
	}
	var r kong.ResolverFunc = func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		value, ok := values[flag.Name]
		if !ok || value == nil {
			return nil, nil
		}
		list, ok := value.([]any)
		if !ok {
			return fmt.Sprint(value), nil
		}
		texts := make([]string, len(list))
		for i, v := range list {
			texts[i] = fmt.Sprint(v)
		}
		return strings.Join(texts, string(flag.Tag.Sep)), nil
	}
	return r, nil
}

// withDefaults fills in what follows from other options.
func (c Config) withDefaults(env Environment) Config {
	if c.DataDir == "" {
		home, _ := env("HOME")
		state, ok := env("XDG_STATE_HOME")
		switch {
		case os.Geteuid() == 0:
			c.DataDir = "/var/lib/accrue"
		case ok && state != "":
			c.DataDir = filepath.Join(state, "accrue")
		default:
			c.DataDir = filepath.Join(home, ".local", "state", "accrue")
		}
	}
	if c.PublicURL == "" && !c.Live() {
		c.PublicURL = "http://" + c.Addr
	}
	if c.ReturnURL == "" && c.Provider == "stripe" { // which does not do without
		c.ReturnURL = c.PublicURL
	}
	return c
}

// settingsTable writes every option with its value in force, secrets redacted.
func settingsTable(w io.Writer, k *kong.Kong) error {
	group := ""
	for _, f := range k.Model.Flags {
		if f.Name == "help" || f.Name == "config" {
			continue
		}
		if f.Group != nil && f.Group.Title != group {
			group = f.Group.Title
			if _, err := fmt.Fprintf(w, "\n# %s\n", group); err != nil {
				return err
			}
		}
		help, _, _ := strings.Cut(f.Help, " [")
		value := fmt.Sprint(f.Target.Interface())
		if f.Target.Kind() == reflect.Slice {
			value = strings.Trim(value, "[]")
			if f.Target.Len() > 0 && isSecret(f) {
				value = "[redacted]"
			}
		}
		if value == "" {
			value = "-"
		}
		if _, err := fmt.Fprintf(w, "%-24s %-32s %-28s %s\n", f.Name, envName(f.Name), value, help); err != nil {
			return err
		}
	}
	return nil
}
