using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Tensormesh.TestKit;

/// <summary>The devices and faults that the mock driver shows. Change it and save it: processes that have the driver loaded follow.</summary>
public sealed class MockGpus
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        WriteIndented = true,
    };

    public string DriverVersion { get; set; } = "550.54.15";

    /// <summary>As CUDA writes it: 1000 x major + 10 x minor.</summary>
    public int CudaVersion { get; set; } = 12040;

    public List<MockGpu> Devices { get; init; } = [];
    public List<MockFault> Faults { get; init; } = [];

    /// <summary>H100s in their slots, the same at each call for the same node.</summary>
    public static MockGpus OfNode(string node, int count) => new()
    {
        Devices =
        [
            .. Enumerable.Range(0, count).Select(index => new MockGpu
            {
                Uuid = Uuid("GPU", $"{node}/{index}"),
                Pci = $"0000:{index + 16:x2}:00.0",
            }),
        ],
    };

    public static string Uuid(string prefix, string seed)
        => $"{prefix}-{new Guid(SHA256.HashData(Encoding.UTF8.GetBytes(seed)).AsSpan(0, 16), bigEndian: true):D}";

    /// <summary>At once, for a reader: renamed into place.</summary>
    public void Save(string file)
    {
        var half = file + ".new";
        File.WriteAllText(half, JsonSerializer.Serialize(this, Json));
        File.Move(half, file, overwrite: true);
    }
}

public sealed record MockGpu
{
    public required string Uuid { get; init; }

    /// <summary>Domain, bus, device and function.</summary>
    public required string Pci { get; init; }

    public string Name { get; init; } = "NVIDIA H100 80GB HBM3";

    [JsonPropertyName("memoryMiB")]
    public long MemoryMebibytes { get; init; } = 81559;

    [JsonPropertyName("usedMiB")]
    public long UsedMebibytes { get; init; }

    public int Major { get; init; } = 9;
    public int Minor { get; init; }
    public int Multiprocessors { get; init; } = 132;
    public bool MigEnabled { get; init; }
    public IReadOnlyList<MockMig> Mig { get; init; } = [];
    public bool Ecc { get; init; } = true;
    public long EccCorrected { get; init; }
    public long EccUncorrected { get; init; }
    public int RetiredSingle { get; init; }
    public int RetiredDouble { get; init; }
    public bool RetiredPending { get; init; }
    public int RemappedCorrected { get; init; }
    public int RemappedUncorrected { get; init; }
    public bool RemapPending { get; init; }
    public bool RemapFailed { get; init; }
    public int PowerMilliwatts { get; init; } = 71_000;
    public int PowerLimitMilliwatts { get; init; } = 700_000;
    public int Temperature { get; init; } = 34;
    public int Utilization { get; init; }
    public int MemoryUtilization { get; init; }

    /// <summary>NVML's bits.</summary>
    public int Throttle { get; init; } = 1;

    public IReadOnlyList<MockProcess> Processes { get; init; } = [];

    /// <summary>All that happened, oldest first; each is told of once to whoever listened when it was added.</summary>
    public IReadOnlyList<int> Xids { get; init; } = [];
}

public sealed record MockMig(string Uuid, string Name, [property: JsonPropertyName("memoryMiB")] long MemoryMebibytes);

/// <param name="MemoryMebibytes">Null where the driver does not know it.</param>
public sealed record MockProcess(int Pid, [property: JsonPropertyName("memoryMiB")] long? MemoryMebibytes);

/// <summary>A call that does not do what it should, such as <c>nvmlInit</c>, <c>cuInit</c>, or <c>nvml*</c> for all of a kind.</summary>
/// <param name="Call">Without a version suffix.</param>
/// <param name="Status">nvmlReturn_t or CUresult.</param>
/// <param name="Device">Null for all devices.</param>
/// <param name="Hang">It never returns.</param>
public sealed record MockFault(string Call, int Status = 0, int? Device = null, bool Hang = false)
{
    /// <summary>NVML_ERROR_GPU_IS_LOST at each call.</summary>
    public static MockFault Lost(int device) => new("nvml*", 15, device);
}
