using System.Text.Json;

namespace Tensormesh.TestKit;

/// <summary>
/// What one dev cluster has made on this machine, on disk before it is made, so that a sweep after a
/// violent end takes away that and nothing else.
/// </summary>
internal sealed class ClusterRecord
{
    public const string Suffix = ".cluster.json";

    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true };

    private readonly Lock _gate = new();
    private readonly string _file;
    private Content _content;

    private ClusterRecord(string file, Content content)
    {
        _file = file;
        _content = content;
    }

    /// <param name="Directory">The cluster's folder; deleted whole with the cluster.</param>
    /// <param name="BootId">After a reboot nothing but the folder can be left.</param>
    /// <param name="Interfaces">Network interfaces of the host that belong to the cluster.</param>
    /// <param name="LoopbackAddresses">Addresses with prefix that were added to `lo`.</param>
    /// <param name="CgroupName">The cgroup, in every hierarchy, under which the node's containers run; null without a real node.</param>
    internal sealed record Content(
        string Id, string Directory, ProcessIdentity Owner, string BootId,
        IReadOnlyList<ProcessIdentity> Processes, IReadOnlyList<string> Interfaces,
        IReadOnlyList<string> LoopbackAddresses, string? CgroupName);

    public string Id => _content.Id;
    public string Directory => _content.Directory;
    public Content Current => _content;

    public static string CurrentBootId => File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    /// <summary>True while the process that made the cluster lives: then only that process may touch it.</summary>
    public bool OwnerIsAlive => _content.BootId == CurrentBootId && ProcFs.IsAlive(_content.Owner);

    public static ClusterRecord Create(string id, string directory)
    {
        var content = new Content(id, directory, ProcFs.Self, CurrentBootId, [], [], [], null);
        var record = new ClusterRecord(Path.Combine(StateRoot.Directory, id + Suffix), content);
        record.Save();
        return record;
    }

    /// <summary>Every record in the state root; a file that is no record is skipped.</summary>
    public static IEnumerable<ClusterRecord> All()
    {
        if (!System.IO.Directory.Exists(StateRoot.Directory))
            yield break;
        foreach (var file in System.IO.Directory.EnumerateFiles(StateRoot.Directory, "*" + Suffix))
        {
            Content? content;
            try
            {
                content = JsonSerializer.Deserialize<Content>(File.ReadAllText(file));
            }
            catch (Exception unreadable) when (unreadable is JsonException or IOException)
            {
                continue;
            }

            if (content is not null)
                yield return new ClusterRecord(file, content);
        }
    }

    public void Add(ProcessIdentity process) => Change(content => content with { Processes = [.. content.Processes, process] });

    public void Remove(ProcessIdentity process) =>
        Change(content => content with { Processes = [.. content.Processes.Where(each => each != process)] });

    public void AddInterface(string name) => Change(content => content with { Interfaces = [.. content.Interfaces, name] });

    public void AddLoopbackAddress(string address) =>
        Change(content => content with { LoopbackAddresses = [.. content.LoopbackAddresses, address] });

    public void SetCgroup(string name) => Change(content => content with { CgroupName = name });

    public void Delete() => File.Delete(_file);

    private void Change(Func<Content, Content> change)
    {
        lock (_gate)
        {
            _content = change(_content);
            Save();
        }
    }

    private void Save()
    {
        var next = _file + ".next";
        File.WriteAllText(next, JsonSerializer.Serialize(_content, Json));
        File.Move(next, _file, overwrite: true);
    }
}
