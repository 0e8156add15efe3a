using System.Text.Json.Serialization;
using Tensormesh.Devices.Interop;

namespace Tensormesh.Devices.Worker;

/// <summary>
/// One line of a worker's answer: first the driver, then a device in each, and in each what is looked at next. A worker that hangs
/// has told everything up to where it hangs.
/// </summary>
internal sealed record WorkerLine
{
    public DriverReading? Driver { get; init; }

    /// <summary>The index of the device that is looked at next; null when none is.</summary>
    public int? At { get; init; }

    public DeviceReading? Device { get; init; }
    public bool End { get; init; }
}

/// <param name="Xids">Those that were heard of since the last reading.</param>
internal sealed record DriverReading(
    LibraryReading Nvml, LibraryReading Cuda, string? DriverVersion, string? CudaVersion, IReadOnlyList<XidReading> Xids);

/// <param name="Devices">How many devices the library counts; 0 unless it answers.</param>
/// <param name="Message">Why it does not answer.</param>
internal sealed record LibraryReading(LibraryState State, int Devices, string Message)
{
    /// <summary>What was read, or why nothing can be: there is no such library, it cannot be loaded, or it lacks a function.</summary>
    public static LibraryReading Of(DriverLibrary library, Func<LibraryReading> read)
    {
        if (!library.IsLoaded) return new LibraryReading(library.IsAbsent ? LibraryState.Absent : LibraryState.Failed, 0, library.Message);
        try
        {
            return read();
        }
        catch (EntryPointNotFoundException fault)
        {
            return new LibraryReading(LibraryState.Failed, 0, fault.Message);
        }
    }
}

internal enum LibraryState
{
    Absent,
    Failed,
    Answers,
}

internal sealed record XidReading(DeviceUuid Uuid, int Code);

/// <param name="Facts">Not judged yet.</param>
/// <param name="InCuda">Whether CUDA lists the device; null when CUDA does not answer.</param>
/// <param name="Failures">Calls that failed otherwise than because the device does not support them.</param>
internal sealed record DeviceReading(Device Facts, bool? InCuda, IReadOnlyList<CallFailure> Failures);

/// <param name="Status">NVML's.</param>
internal sealed record CallFailure(string Call, int Status)
{
    public override string ToString() => $"{Call}: {NvmlStatus.Name(Status)}";
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(WorkerLine))]
internal sealed partial class Wire : JsonSerializerContext;
