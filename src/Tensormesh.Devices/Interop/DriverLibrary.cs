using System.Reflection;
using System.Runtime.InteropServices;

namespace Tensormesh.Devices.Interop;

/// <summary>
/// One of the driver's two libraries, found at run time: a node without it is an answer, not a failure to start. A library stays
/// loaded for the life of the process, which here is a worker's.
/// </summary>
internal sealed class DriverLibrary
{
    /// <summary>What the imports name; the resolver puts the loaded library in its place.</summary>
    public const string CudaName = "tensormesh-cuda";

    public const string NvmlName = "tensormesh-nvml";

    private static readonly Dictionary<string, nint> Loaded = new(StringComparer.Ordinal);
    private readonly Dictionary<string, bool> exports = new(StringComparer.Ordinal);
    private readonly nint handle;

    static DriverLibrary()
        => NativeLibrary.SetDllImportResolver(Assembly.GetExecutingAssembly(), static (name, _, _) => Loaded.GetValueOrDefault(name));

    private DriverLibrary(nint handle, bool isAbsent, string message)
        => (this.handle, IsAbsent, Message) = (handle, isAbsent, message);

    public bool IsLoaded => handle != 0;

    /// <summary>There is no such file, as against one that cannot be loaded.</summary>
    public bool IsAbsent { get; }

    /// <summary>The loader's own words; empty when loaded.</summary>
    public string Message { get; }

    public static DriverLibrary Load(string name, string path)
    {
        try
        {
            return new DriverLibrary(Loaded[name] = NativeLibrary.Load(path), isAbsent: false, "");
        }
        catch (Exception fault) when (fault is DllNotFoundException or BadImageFormatException)
        {
            var absent = Path.IsPathRooted(path) ? !File.Exists(path) : IsNotFound(fault.Message, path);
            return new DriverLibrary(0, absent, absent ? $"there is no {path}" : fault.Message.ReplaceLineEndings(" "));
        }
    }

    /// <summary>Whether the library has a function: drivers of different ages have different versions of some.</summary>
    public bool Has(string function)
    {
        if (!exports.TryGetValue(function, out var has)) exports[function] = has = NativeLibrary.TryGetExport(handle, function, out _);
        return has;
    }

    // A library that is there but lacks one that it needs is also "not found", under the other's name.
    private static bool IsNotFound(string message, string path)
        => message.Contains($"{path}: cannot open shared object file: No such file", StringComparison.Ordinal);
}
