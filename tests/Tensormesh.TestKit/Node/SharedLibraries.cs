using System.Text.RegularExpressions;

namespace Tensormesh.TestKit;

/// <summary>What programs of this machine need beside them in an image that has no distribution of its own.</summary>
internal static partial class SharedLibraries
{
    /// <summary>The loader and the libraries that the programs are linked against, by their full paths.</summary>
    public static async Task<IReadOnlyList<string>> OfAsync(IEnumerable<string> programs, CancellationToken cancellation)
    {
        // ldd ends with 1 where one of several is linked statically, and says "not found" of what a program can do without.
        var (_, output) = await Command.TryRunAsync("ldd", programs, line: null, cancellation);
        return [.. Resolved().Matches(output).Select(match => match.Groups[1].Value).Distinct().Order(StringComparer.Ordinal)];
    }

    [GeneratedRegex(@"^\s+(?:\S+ => )?(/\S+) \(0x", RegexOptions.Multiline)]
    private static partial Regex Resolved();
}
