namespace Tensormesh.TestKit;

/// <summary>Where the repository's own files are, as seen from a build output.</summary>
public static class Repository
{
    public static string Root { get; } = FindRoot();

    public static string Folder(params string[] path) => Path.Combine([Root, .. path]);

    /// <summary>The built assembly of one of our executables, of the same configuration as the caller.</summary>
    /// <exception cref="FileNotFoundException">It was not built.</exception>
    public static string Executable(string project, string assembly)
    {
        // artifacts/bin/<Project>/<configuration>/: a project's neighbours are two folders up.
        var here = new DirectoryInfo(AppContext.BaseDirectory.TrimEnd(Path.DirectorySeparatorChar));
        var file = Path.Combine(here.Parent!.Parent!.FullName, project, here.Name, assembly + ".dll");
        return File.Exists(file) ? file : throw new FileNotFoundException($"{file} is missing: build the solution first (make build)");
    }

    private static string FindRoot()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Tensormesh.Operator.sln"))) return folder.FullName;
        }

        // Build outputs outside the tree: the folder from which the command was started.
        for (var folder = new DirectoryInfo(Environment.CurrentDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Tensormesh.Operator.sln"))) return folder.FullName;
        }

        throw new DirectoryNotFoundException("Tensormesh.Operator.sln was found neither above the build output nor above the current folder");
    }
}
